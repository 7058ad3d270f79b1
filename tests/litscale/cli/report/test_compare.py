"""One table of several runs."""

import os
import re
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from callbacks.evaluation.evaluated_weights import EvaluatedWeights
from callbacks.reporting.json_text import json_text
from litscale.cli import scores as score_files
from litscale.cli.main import main
from litscale.cli.scores import newest_scores, read_scores, write_scores
from litscale.storage.checkpoint_record import CheckpointRecord

USUAL = {"precision": "32-true", "batches": 1.0}


def hashed(key):
    """What stands in the name of a file of scores with the usual settings."""
    return sha256(key.encode() + json_text(USUAL)).hexdigest()[:8]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write scores of a run as if its ``last.ckpt`` of that step had been evaluated at that minute."""

    def write(run, stage, step, values, minute=0, content=b"weights", **settings):
        checkpoint = tmp_path / run / "last.ckpt"
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_bytes(content)
        now = datetime(2026, 1, 1, 12, minute, tzinfo=UTC)
        os.utime(checkpoint, (now.timestamp() - 1,) * 2)

        class Clock(datetime):
            @classmethod
            def now(cls, zone):
                return now

        monkeypatch.setattr(score_files, "datetime", Clock)
        record = CheckpointRecord(str(checkpoint), step, sha256(content).hexdigest())
        return write_scores(tmp_path / run, stage, EvaluatedWeights(record, {}), USUAL | settings, values)

    return write


def shown(capsys, *runs):
    main(["compare", *map(str, runs)])
    return [re.sub(r"[│┃]", " ", line).split() for line in capsys.readouterr().out.splitlines()]


def test_scores_of_runs_stand_side_by_side(tmp_path, capsys, written):
    written("small", "test", 70, {"test/a": 1.5, "test/b": 2})
    written("large", "test", 700, {"test/a": 1.25})
    written("large", "validate", 700, {"val/a": 9.0}, minute=5)  # a test outweighs it
    lines = shown(capsys, tmp_path / "small", tmp_path / "large")
    assert ["test/a", "1.5", "1.25"] in lines
    assert ["test/b", "2"] in lines
    assert not any("val/a" in line for line in lines)
    assert ["score", "small", "large"] in lines
    assert ["weights", "last.ckpt,", "step", "70", "last.ckpt,", "step", "700"] in lines


def test_scores_of_different_data_have_rows_of_their_own(tmp_path, capsys, written):
    written("tested", "test", 70, {"test/a": 1.5, "music/polyphony": 2.0})
    written("validated", "validate", 70, {"val/a": 2.5, "music/polyphony": 3.0})
    lines = shown(capsys, tmp_path / "tested", tmp_path / "validated")
    assert [line for line in lines if line[:1] == ["music/polyphony"]] == [
        ["music/polyphony", "(test)", "2"],
        ["music/polyphony", "(validate)", "3"],
    ]


def test_evaluations_of_other_settings_stand_beside_each_other_and_are_named(tmp_path, capsys, written):
    names = {
        written("run", "test", 9, {"test/a": 3.0}).name,
        written("run", "test", 9, {"test/a": 3.5}, minute=1, precision="bf16-true").name,
        written("run", "test", 9, {"test/a": 4.0}, minute=2, batches=5).name,
    }
    assert len(names) == 3
    weights = next(line for line in shown(capsys, tmp_path / "run") if line[:1] == ["weights"])
    assert weights == ["weights", "last.ckpt,", "step", "9,", "5", "of", "the", "batches"]


def test_the_stride_of_windows_is_named(tmp_path, written):
    data = {"init_args": {"evaluation": {"stride": 64}}}
    assert read_scores(written("run", "test", 9, {"test/a": 4.0}, data=data)).source == "last.ckpt, step 9, stride 64"
    beside = {"init_args": {"evaluation": {"stride": None}}}
    assert read_scores(written("run", "test", 9, {"test/a": 4.0}, data=beside)).source == "last.ckpt, step 9"


def test_one_batch_is_not_all_of_them(tmp_path, written):
    assert read_scores(written("run", "test", 9, {"test/a": 4.0}, batches=1)).source.endswith(", 1 of the batches")
    shared = written("run", "test", 9, {"test/a": 4.0}, batches=1, processes=2)
    assert read_scores(shared).source.endswith(", 1 of the batches of each of 2 processes")


def test_each_checkpoint_keeps_its_scores_and_the_newest_are_shown(tmp_path, capsys, written):
    names = [
        written("run", "test", 9, {"test/a": 3.0}, minute=2, content=b"9").name,
        written("run", "test", 10, {"test/a": 4.0}, minute=1, content=b"10").name,
    ]
    keys = [sha256(str(n).encode()).hexdigest() for n in (9, 10)]
    assert names == [f"scores_test_step_{n}_{hashed(key)}.json" for n, key in zip((9, 10), keys, strict=True)]
    assert newest_scores(tmp_path / "run", "test").scores == {"test/a": 3.0}
    # the same weights again take the place of what they had
    written("run", "test", 10, {"test/a": 5.0}, minute=3, content=b"10")
    assert len(list((tmp_path / "run").glob("scores_*.json"))) == 2
    assert ["test/a", "5"] in shown(capsys, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(b"other"), "(overwritten since)"),
        (lambda path: path.unlink(), "(removed since)"),
        (lambda path: os.utime(path), ""),  # newer, but the same
        (lambda path: (path.write_bytes(b"other"), os.utime(path, (0, 0))), "(overwritten since)"),  # by an older file
        (lambda path: None, ""),
    ],
)
def test_scores_say_if_their_checkpoint_is_another_by_now(tmp_path, written, change, said):
    path = written("run", "test", 7, {"test/a": 1.0})
    change(tmp_path / "run" / "last.ckpt")
    assert read_scores(path).source == f"last.ckpt, step 7 {said}".strip()


def test_weights_that_are_no_checkpoint_are_named(tmp_path):
    files = {"official_checkpoint": {"file": "/there/fractalar.pth", "sha256": "ab"}}
    path = write_scores(tmp_path, "test", EvaluatedWeights(None, files), USUAL, {"test/a": 1.0})
    assert path.name == f"scores_test_files_{hashed(sha256(b'ab').hexdigest())}.json"
    assert read_scores(path).source == "fractalar.pth"
    assert read_scores(write_scores(tmp_path, "test", EvaluatedWeights(None, {}), USUAL, {})).source == "untrained"


def test_scores_that_are_not_finite_are_shown_so(tmp_path, capsys, written):
    written("run", "test", 7, {"test/a": float("nan"), "test/b": 2.0})
    lines = shown(capsys, tmp_path / "run")
    assert ["test/a", "not", "finite"] in lines
    assert ["test/b", "2"] in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "run litscale test with it first"),
        ("{", "is damaged .*: delete it and run litscale test again"),
        ("[1]", "is damaged .*: delete it and run litscale test again"),
        ('{"scores": {}}', "is damaged .*: delete it and run litscale test again"),
    ],
)
def test_runs_without_scores_are_refused(tmp_path, capsys, text, message):
    if text is not None:
        (tmp_path / "scores_test_step_1_abcdef12.json").write_text(text)
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path)])
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error)


def test_a_folder_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "gone")])
    assert f"{tmp_path / 'gone'}: no such folder; give the folder of a run" in capsys.readouterr().err


def test_columns_are_headed_by_names_that_tell_runs_apart(tmp_path, capsys, written, monkeypatch):
    for run in ("a/run", "b/run"):
        (tmp_path / run).mkdir(parents=True)
        written(run, "test", 7, {"test/a": 1.5})
    monkeypatch.chdir(tmp_path / "a" / "run")
    assert ["score", "run"] in shown(capsys, ".")
    monkeypatch.chdir(tmp_path)
    assert ["score", "a/run", "b/run"] in shown(capsys, "a/run", "b/run")


def test_evaluations_of_a_run_without_scores_are_named(tmp_path, capsys):
    table = tmp_path / "run" / "evaluations" / "cheap" / "scores.md"
    table.parent.mkdir(parents=True)
    table.write_text("")
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "run")])
    assert f"run litscale test with it first; those of its evaluations stand in {table}" in capsys.readouterr().err


def test_a_folder_of_runs_is_no_run(tmp_path, capsys):
    for run in ("b", "a"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.yaml").touch()
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path)])
    assert f"{tmp_path} is no run, but holds runs: give them, such as {tmp_path / 'a'}\n" in capsys.readouterr().err
