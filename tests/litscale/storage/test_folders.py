"""Folders appear whole, replace each other as wholes, and killed processes leave nothing for long."""

import subprocess
import sys

from litscale.storage.folders import NewFolder, remove_abandoned

MAKER = """
import os, signal, sys
from pathlib import Path
from litscale.storage.folders import NewFolder
folder = NewFolder(Path(sys.argv[1]))
(folder.path / "half").write_text("half")
print(folder.path.name, flush=True)
sys.stdin.read()
"""


def content(folder):
    """Name -> text of the files of a folder, hidden ones too."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_is_hidden_until_it_is_whole(tmp_path):
    new = NewFolder(tmp_path / "parent")
    (new.path / "a").write_text("1")
    assert [path.name.startswith(".") for path in (tmp_path / "parent").iterdir()] == [True]
    assert new.publish("name") == tmp_path / "parent" / "name"
    assert content(tmp_path / "parent" / "name") == {"a": "1"}
    new.discard()
    assert content(tmp_path / "parent" / "name") == {"a": "1"}


def test_a_folder_replaces_another_as_a_whole(tmp_path):
    for files in (("a", "b"), ("a",)):
        new = NewFolder(tmp_path)
        for name in files:
            (new.path / name).write_text(f"{name} of {len(files)}")
        new.publish("name")
    assert content(tmp_path / "name") == {"a": "a of 1"}
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_discarding(tmp_path):
    new = NewFolder(tmp_path)
    (new.path / "a").write_text("1")
    new.discard()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_is_written_is_not(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = [maker.stdout.readline().strip() for maker in makers]
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    makers[0].kill()
    makers[0].wait()
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == names[1:]
    makers[1].communicate()


def test_a_folder_whose_replacement_was_cut_short_comes_back(tmp_path):
    for name in (".replaced-lost", ".replaced-done", "done"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lost", "done"}
    assert content(tmp_path / "done") == {"file": "done"}
    assert content(tmp_path / "lost") == {"file": ".replaced-lost"}
