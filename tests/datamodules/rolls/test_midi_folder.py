from pathlib import Path

import pytest
from data_runs import touch

from datamodules import MidiFolder
from datamodules.messages import abridged
from datamodules.rolls.midi_folder import content_hashes, midi_files


def test_files_are_found_in_all_folders_and_cases(tmp_path: Path) -> None:
    touch(tmp_path, "z.MID", "a/b/c.midi", "a/d.Mid", "a/no.txt", "a.mid/e.mid")
    assert midi_files(tmp_path) == ["a.mid/e.mid", "a/b/c.midi", "a/d.Mid", "z.MID"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/x.mid", "elsewhere/deep/y.mid", "songs/a.mid", "alone.mid")
    (tmp_path / "songs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "songs" / "file.mid").symlink_to(tmp_path / "alone.mid")
    (tmp_path / "top").symlink_to(tmp_path / "songs")
    expected = ["a.mid", "file.mid", "link/deep/y.mid", "link/x.mid"]
    assert midi_files(tmp_path / "songs") == midi_files(tmp_path / "top") == expected


def test_links_in_circles_and_second_ways_give_no_copies(tmp_path: Path) -> None:
    touch(tmp_path, "songs/z/x.mid", "songs/z/deep/y.mid", "out/w.mid")
    (tmp_path / "songs" / "a").symlink_to(tmp_path / "songs" / "z")  # sorted before the folder itself
    (tmp_path / "songs" / "z" / "up").symlink_to(tmp_path / "songs")
    (tmp_path / "songs" / "self").symlink_to(tmp_path / "songs" / "self")
    (tmp_path / "songs" / "b").symlink_to(tmp_path / "out")
    (tmp_path / "songs" / "c").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "songs")
    assert midi_files(tmp_path / "songs") == ["b/w.mid", "z/deep/y.mid", "z/x.mid"]


def test_links_to_nothing_are_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.mid").symlink_to(tmp_path / "nowhere.mid")
    assert midi_files(tmp_path) == ["gone.mid"]
    assert content_hashes(tmp_path, ["gone.mid"]) == {"gone.mid": "unreadable"}


def test_missing_and_empty_folders_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder: there is no folder .*nowhere; give one"):
        midi_files(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"folder: no \.mid or \.midi file in .*; give one"):
        midi_files(tmp_path)


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(b"1")
    before = content_hashes(tmp_path, ["a.mid"])
    (tmp_path / "a.mid").write_bytes(b"2")
    assert content_hashes(tmp_path, ["a.mid"]) != before
    assert content_hashes(tmp_path, ["gone.mid"]) == {"gone.mid": "unreadable"}


def test_classes_are_first_level_folders() -> None:
    assert MidiFolder("x").classes(["rock/x/1.mid", "jazz/2.mid", "rock/3.mid"]) == ["rock", "jazz", "rock"]
    with pytest.raises(ValueError, match=r"labels: 1 files .*loose\.mid; move them"):
        MidiFolder("x").classes(["rock/1.mid", "loose.mid"])


def test_long_lists_are_cut_in_messages() -> None:
    assert abridged([*"abcde"]) == "a; b; c; d; e"
    assert abridged([*"abcdefg"]) == "a; b; c; d; e; and 2 more"
