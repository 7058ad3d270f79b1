"""One table of several runs."""

import json
import re

import pytest

from litscale.cli import main


def test_scores_of_runs_stand_side_by_side(tmp_path, capsys):
    for name, scores in (("small", {"test/a": 1.5, "test/b": 2}), ("large", {"test/a": 1.25})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores_test.json").write_text(json.dumps(scores))
    (tmp_path / "large" / "scores_validate.json").write_text(json.dumps({"val/a": 9.0}))  # a test outweighs it
    main(["compare", str(tmp_path / "small"), str(tmp_path / "large")])
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["test/a", "1.5", "1.25"] in lines
    assert ["test/b", "2"] in lines
    assert not any("val/a" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "run litscale test with it first"), ("{", "is damaged .*: run litscale test again")]
)
def test_runs_without_scores_are_refused(tmp_path, capsys, text, message):
    if text is not None:
        (tmp_path / "scores_test.json").write_text(text)
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path)])
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error)
