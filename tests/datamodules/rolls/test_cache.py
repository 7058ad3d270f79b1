import errno
import multiprocessing
import os
import pickle
import select
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.rolls import cache as roll_cache
from datamodules.rolls.cache import RollCache, build_cache, cache_path
from litscale.music.roll import Roll
from litscale.storage.caches import cache_root

NAMES = [f"piece {number}" for number in range(40)]


def roll_of(name: str) -> Roll:
    """A reader: piece n has 10 + n steps, and starts with a note of velocity n + 1 on pitch n."""
    number = int(name.split()[1])
    symbols = np.zeros((128, 10 + number), np.uint8)
    symbols[number, :3] = [number + 1, 128, 128]
    return Roll(symbols)


def roll_of_even(name: str) -> Roll:
    if int(name.split()[1]) % 2:
        raise ValueError(f"{name}: odd")
    return roll_of(name)


def unreadable(name: str) -> Roll:
    raise PermissionError(errno.EACCES, "Permission denied", name)


def path_in(folder: Path) -> Path:
    return cache_path(folder, {"source": "1", "encoding": "onset_hold"})


def prepare(folder: Path) -> None:
    build_cache(path_in(folder), NAMES, roll_of, "pieces")


@pytest.mark.parametrize("cores", [1, 2])
def test_pieces_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    cache = build_cache(path_in(tmp_path), NAMES, roll_of, "pieces")
    assert cache.names == NAMES
    for number, name in enumerate(NAMES):
        assert np.array_equal(cache.window(number, 0, 10 + number), roll_of(name).symbols)
        assert cache.notes[number].sum() == cache.notes[number, number] == 1
    assert np.array_equal(cache.window(5, 1, 4), roll_of("piece 5").symbols[:, 1:5])
    with pytest.raises(ValueError, match="read-only"):
        cache.window(0, 0, 1)[:] = 0


def test_what_cannot_be_read_is_kept_as_a_reason(tmp_path: Path) -> None:
    build_cache(path_in(tmp_path), NAMES, roll_of_even, "pieces")
    cache = RollCache.open(path_in(tmp_path))
    assert cache is not None
    assert cache.names == NAMES[::2]
    assert cache.errors["piece 1"] == "piece 1: odd"
    assert len(cache.errors) == 20


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of 40 files could be read: .*Permission denied.*; and 35 more"):
        build_cache(path_in(tmp_path), NAMES, unreadable, "pieces")
    assert list(tmp_path.iterdir()) == []


def test_the_name_follows_content_options_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def places() -> list[Path]:
        sources, options = ({"a": "1"}, {"a": "2"}, {"b": "1"}), ({"drums": True}, {"drums": False})
        return [cache_path(tmp_path, {"source": source, **option}) for source in sources for option in options]

    before = places()
    assert len(set(before)) == 6
    assert places() == before
    monkeypatch.setattr(roll_cache, "_code_hash", lambda: "other code")
    assert not set(places()) & set(before)


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=prepare, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == [path_in(tmp_path)]
    assert RollCache.open(path_in(tmp_path)) is not None


def test_the_second_to_finish_discards_its_own(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = (path_in(tmp_path) / "rolls.u8").stat().st_ino
    prepare(tmp_path)
    assert (path_in(tmp_path) / "rolls.u8").stat().st_ino == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "no index", "bad index", "no notes"])
def test_a_damaged_cache_is_not_opened_and_is_replaced(tmp_path: Path, damage: str) -> None:
    prepare(tmp_path)
    folder = path_in(tmp_path)
    if damage == "cut":
        os.truncate(folder / "rolls.u8", 100)
    elif damage == "no index":
        (folder / "index.json").unlink()
    elif damage == "bad index":
        (folder / "index.json").write_text('{"names"')
    else:
        (folder / "notes.npy").write_bytes(b"")
    assert RollCache.open(folder) is None
    prepare(tmp_path)
    assert RollCache.open(folder) is not None
    assert list(tmp_path.iterdir()) == [folder]


def unreadable_slowly(folder: Path, name: str) -> Roll:
    (folder / "reading").touch()
    time.sleep(0.1)
    raise ValueError(name)


def build_slowly(folder: Path) -> None:
    names = [str(number) for number in range(1000)]
    build_cache(folder / "cache" / "rolls", names, partial(unreadable_slowly, folder), "pieces")


def test_a_cache_that_another_process_publishes_at_this_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "other")
    path, opened = path_in(tmp_path / "cache"), RollCache.open

    def open_before_it_is_there(place: Path) -> RollCache | None:
        monkeypatch.setattr(RollCache, "open", opened)
        path_in(tmp_path / "other").rename(path)
        return None

    monkeypatch.setattr(RollCache, "open", open_before_it_is_there)
    published = path_in(tmp_path / "other").stat().st_ino
    build_cache(path, NAMES, roll_of, "pieces")
    assert path.stat().st_ino == published
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_reading_processes_end_with_a_killed_parent_and_the_next_removes_what_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    read_end, write_end = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=build_slowly, args=(tmp_path,))
    process.start()
    os.close(write_end)
    while not (tmp_path / "reading").exists():
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    # The pipe ends when the last process ends that could write to it.
    with os.fdopen(read_end, "rb") as pipe:
        assert select.select([pipe], [], [], 120)[0] == [pipe]
        assert pipe.read() == b""
    assert len(list((tmp_path / "cache").iterdir())) == 2  # a folder and its lock
    prepare(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [path_in(tmp_path / "cache")]


def touch(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    (folder / name).touch()
    return np.full((1, 128), int(name.split()[1]), np.uint8), np.zeros(128, int)


def test_what_waits_to_be_written_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are of 16 pieces, but end with a piece that fills them; then the next waits until this one is taken."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(roll_cache, "CHUNK_BYTES", 1)
    results = roll_cache._read_all(NAMES, partial(touch, tmp_path))
    first = next(results)
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"piece 0", "piece 1", "piece 16", "piece 32"}
    assert [int(piece[0][0, 0]) for piece in (first, *results)] == list(range(40))


def test_a_full_disk_leaves_nothing_and_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(roll_cache, "os", SimpleNamespace(**{**vars(os), "fsync": full}))
    with pytest.raises(OSError, match=r"No space left on device.*cache_dir") as caught:
        prepare(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cache_dir"):
        prepare(tmp_path / "file" / "cache")


def test_an_open_cache_travels_without_its_symbols(tmp_path: Path) -> None:
    prepare(tmp_path)
    cache = RollCache.open(path_in(tmp_path))
    assert cache is not None
    cache.window(0, 0, 1)
    assert len(pickle.dumps(cache)) < (path_in(tmp_path) / "rolls.u8").stat().st_size / 4
    assert np.array_equal(pickle.loads(pickle.dumps(cache)).window(3, 0, 13), roll_of("piece 3").symbols)


def test_where_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITSCALE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("LITSCALE_CACHE")
    assert cache_root() == tmp_path / "xdg" / "litscale"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "litscale"
