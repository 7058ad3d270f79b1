"""The data that docs/extending.md shows: collections, data sets, data modules and loaders of one's own."""

import re
from pathlib import Path

import pytest
from rank_runs import run

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTIONS = dict(section.split("\n", 1) for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:])


@pytest.mark.parametrize(
    "section",
    ["My own collection of rolls", "My own data set of images", "My own LightningDataModule", "Plain `Trainer.fit`"],
)
def test_examples_run(tmp_path: Path, section: str) -> None:
    """Blocks that begin with a file's name are files; the program is what the other ones say."""
    program = ""
    for _, name, text in re.findall(r"```python\n(# (\S+\.py)\n)?(.*?)```", SECTIONS[section], flags=re.DOTALL):
        if name:
            (tmp_path / name).write_text(text)
        else:
            program += text
    assert "assert" in program
    (tmp_path / "program.py").write_text(program)
    run(tmp_path / "program.py", tmp_path)
