import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litscale.storage import temporaries
from litscale.storage.files import atomic_file, write_atomically
from litscale.storage.temporaries import publish_folder, remove_stale, temporary_file, temporary_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from litscale.storage.temporaries import temporary_file, temporary_folder
folder = Path(sys.argv[1])
with temporary_file(folder) as file, temporary_folder(folder) as made:
    file.write(b"half")
    (made / "rolls.u8").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

CUT_SHORT = """
import os, signal, sys
from pathlib import Path
from litscale.storage.temporaries import publish_folder, temporary_folder
rename = Path.rename
def once(path, target):
    rename(path, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = once
folder = Path(sys.argv[1])
with temporary_folder(folder) as made:
    (made / "file").write_text("new")
    publish_folder(made, folder / "name")
"""


def kill_while_running(program: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL


def leave_something(folder: Path) -> list[Path]:
    """What a process leaves that is killed while it writes a file and a folder: these, and the folder's lock."""
    kill_while_running(KILLED, folder)
    left = sorted(folder.iterdir())
    assert len(left) == 3
    return left


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "scores.json", b"old")

    def interrupted() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            assert path.read_bytes() == b"old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"could not write the file .*none/a") as caught:
        write_atomically(tmp_path / "none" / "a", b"")
    assert caught.value.errno == errno.ENOENT


def test_what_a_killed_process_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    leave_something(tmp_path)
    (tmp_path / ".other.tmp").touch()
    write_atomically(tmp_path / "scores.json", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp", "scores.json"]


def write_until_told(folder: Path, ready: "multiprocessing.Queue[str]", go_on: "multiprocessing.Queue[str]") -> None:
    with temporary_file(folder) as file, temporary_folder(folder) as made:
        (made / "part").touch()
        ready.put(file.name)
        go_on.get()
        Path(file.name).rename(folder / "file")
        made.rename(folder / "folder")


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, go_on = context.Queue(), context.Queue()
    writer = context.Process(target=write_until_told, args=(tmp_path, ready, go_on))
    writer.start()
    ready.get(timeout=60)
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    go_on.put("go on")
    writer.join(60)
    assert writer.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_another_machine_left_must_be_a_day_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leave_something(tmp_path)
    monkeypatch.setattr(temporaries.platform, "node", lambda: "another")
    remove_stale(tmp_path)
    assert sorted(tmp_path.iterdir()) == left
    yesterday = time.time() - 25 * 3600
    for path in (*left, *tmp_path.glob("*/*")):
        os.utime(path, (yesterday, yesterday))
    remove_stale(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leave_something(tmp_path)

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(temporaries.fcntl, "flock", unsupported)
    path = write_atomically(tmp_path / "a", b"1")
    assert sorted(tmp_path.iterdir()) == sorted([*left, path])


def test_a_file_that_was_taken_for_stale_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may find a file before it is locked: it removes it, before or after we ask for the lock."""
    lock, calls = temporaries.fcntl.flock, []

    def late(file: object, how: int) -> None:
        calls.append(Path(file.name))  # type: ignore[attr-defined]
        if len(calls) == 1:
            raise BlockingIOError
        if len(calls) == 2:
            calls[-1].unlink()
        lock(file, how)

    monkeypatch.setattr(temporaries.fcntl, "flock", late)
    with temporary_file(tmp_path) as file:
        assert Path(file.name) == calls[2]
        assert Path(file.name).exists()
    assert len(set(calls)) == 3


def content(folder: Path) -> dict[str, str]:
    """Name -> text of the files of a folder, hidden ones too."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_is_hidden_until_it_is_whole_and_replaces_another_as_a_whole(tmp_path: Path) -> None:
    for files in (("a", "b"), ("a",)):
        with temporary_folder(tmp_path) as made:
            for name in files:
                (made / name).write_text(f"{name} of {len(files)}")
            new = {path.name for path in tmp_path.iterdir()} - {"name"}
            assert all(name.startswith(".") for name in new)
            assert publish_folder(made, tmp_path / "name") == tmp_path / "name"
        assert content(tmp_path / "name") == {name: f"{name} of {len(files)}" for name in files}
        assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_folder_that_is_not_published_is_gone(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as made:
        (made / "a").write_text("1")
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_replacement_was_cut_short_comes_back(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "file").write_text("old")
    kill_while_running(CUT_SHORT, tmp_path)
    assert not (tmp_path / "name").exists()
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert content(tmp_path / "name") == {"file": "old"}


def test_a_folder_whose_replacement_was_cut_short_gives_way_to_a_newer_one(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    kill_while_running(CUT_SHORT, tmp_path)
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "file").write_text("newer")
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert content(tmp_path / "name") == {"file": "newer"}


def test_a_folder_that_cannot_be_renamed_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "file").write_text("old")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".d":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)

    def publish() -> None:
        with temporary_folder(tmp_path) as made:
            publish_folder(made, tmp_path / "name")

    with pytest.raises(OSError, match="Input/output"):
        publish()
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert content(tmp_path / "name") == {"file": "old"}


def test_a_folder_that_cannot_be_listed_is_left(tmp_path: Path) -> None:
    remove_stale(tmp_path / "none")
    (tmp_path / "file").touch()
    remove_stale(tmp_path / "file")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
