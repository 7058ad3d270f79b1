import numpy as np
import pytest

from datamodules import BachChorales, Music21Corpus, PianoRollDataModule
from datamodules.rolls import music21_corpus
from datamodules.rolls.music21_corpus import _held_by_either, chorale_files, read_chorale
from litscale import music
from litscale.music.notes import NOTE
from litscale.music.roll import RollFormat


def test_the_list_is_of_distinct_scores() -> None:
    files = chorale_files()
    assert len(files) == len(set(files.values())) == 350
    # music21 itself would take bwv69.6-a and bwv190.7-inst.
    assert files["bach/bwv69.6"].stem == "bwv69.6"
    assert files["bach/bwv190.7"].stem == "bwv190.7"


def test_a_chorale_with_a_pickup() -> None:
    roll = read_chorale("bach/bwv269", RollFormat())
    notes = music.notes(roll)
    # BWV 269 is in 3/4 and begins with a quarter note, G major in four voices: two beats of silence in front.
    assert notes["start"][0] == 8
    assert sorted(notes["pitch"][:4]) == [43, 59, 62, 67]
    assert roll.steps == 12 + 63 * 4 - 4
    assert not roll.symbols[:, :8].any()
    assert roll.format.beats_per_bar == 3
    # The first full bar: the beats of all parts fall together on multiples of a beat.
    assert (notes["start"] == 12).sum() == 4


@pytest.mark.parametrize(("name", "expected"), [("bach/bwv29.8", 3), ("bach/bwv253", 4)])
def test_meters_of_chorales(name: str, expected: float) -> None:
    assert read_chorale(name, RollFormat()).format.beats_per_bar == expected


def test_more_than_four_parts_are_the_singers() -> None:
    roll = read_chorale("bach/bwv29.8", RollFormat())  # with three trumpets and timpani
    assert (roll.symbols > 0).sum(axis=0).max() <= 4


def test_ties_are_one_note_and_grace_notes_none() -> None:
    from music21 import converter

    roll = read_chorale("bach/bwv299", RollFormat())  # two grace notes
    score = converter.parse(chorale_files()["bach/bwv299"], forceSource=True)
    sung = [note for part in score.parts for note in part.stripTies().flatten().notes if not note.duration.isGrace]
    starts = {(note.pitch.midi, float(note.offset)) for note in sung}
    silence = score.parts[0].getElementsByClass("Measure").first().paddingLeft
    found = music.notes(roll)
    assert {(pitch, start / 4 - silence) for pitch, start, _, _ in found.tolist()} == starts


def test_unisons_sound_as_long_as_either_voice() -> None:
    long, inside, apart = (60, 0, 16, 80), (60, 4, 8, 80), (60, 20, 24, 80)
    other = (61, 2, 3, 80)
    merged = _held_by_either(np.array([inside, long, other, apart], NOTE))
    assert merged.tolist() == [long, (60, 4, 16, 80), apart, other]


def test_encodings_and_grids() -> None:
    binary = read_chorale("bach/bwv269", RollFormat("binary", steps_per_beat=2))
    assert binary.steps * 2 == read_chorale("bach/bwv269", RollFormat()).steps
    assert binary.symbols.max() == 1


def test_the_corpus_as_a_data_module(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    three = dict(list(chorale_files().items())[:3])
    monkeypatch.setattr("datamodules.rolls.music21_corpus.chorale_files", lambda: three)
    module = PianoRollDataModule(
        source=BachChorales(),
        pitch_range=(36, 83),
        window=32,
        batch_size=2,
        cache_dir=str(tmp_path),
        split_files={"train": ["*"]},
    )
    module.prepare_data()
    module.setup("fit")
    assert module._cache is not None
    assert module._cache.names == list(three)
    batch = next(iter(module.train_dataloader()))
    assert batch["canvas"].shape == (2, 1, 48, 32)
    assert "label" not in batch


def test_collections_are_classes() -> None:
    source = Music21Corpus(["weber", "miscFolk", "bach"])
    names = source.names()
    assert names[:350] == BachChorales().names()
    assert {name: source.classes([name]) for name in names[350::9]} == {
        name: [name.split("/")[0]] for name in names[350::9]
    }
    assert sorted(set(source.classes(names) or [])) == ["bach", "miscFolk", "weber"]
    assert BachChorales().classes(names) is None
    assert source.fingerprint() != Music21Corpus(["bach"]).fingerprint() == BachChorales().fingerprint()


def test_tunes_of_one_file_are_pieces() -> None:
    source = Music21Corpus(["airdsAirs"])
    names = source.names()
    assert names[:2] == ["airdsAirs/book1/1", "airdsAirs/book1/2"]
    # The White Cockade in G, as the file has it: K:G, a pickup quarter, then (GA) G B | G...
    first, second = (source.read(name, RollFormat()) for name in names[:2])
    assert not np.array_equal(first.symbols, second.symbols)
    played = music.notes(first)
    assert played["start"][0] == 12
    assert (first.symbols > 0).sum(axis=0).max() == 1
    assert set(played["pitch"] % 12) <= {7, 9, 11, 0, 1, 2, 4, 6}


def test_names_of_chords_are_not_played() -> None:
    source = Music21Corpus(["nottingham-dataset"])
    roll = source.read(source.names()[0], RollFormat())
    assert (roll.symbols > 0).sum(axis=0).max() == 1


def test_a_movement_of_a_mass() -> None:
    roll = Music21Corpus(["palestrina"]).read("palestrina/Agnus", RollFormat())
    assert roll.steps == 360 * 4
    assert 3 <= (roll.symbols > 0).sum(axis=0).max() <= 5


def test_scores_that_cannot_be_read_are_set_aside(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    source = Music21Corpus(["weber"])
    (tmp_path / "broken.mxl").write_bytes(b"PK no archive")
    monkeypatch.setattr(music21_corpus, "_pieces", lambda collection: {"weber/broken": (tmp_path / "broken.mxl", None)})
    with pytest.raises(ValueError, match="weber/broken"):
        source.read("weber/broken", RollFormat())


def test_unknown_collections_are_named() -> None:
    with pytest.raises(ValueError, match="music21 has no abba; there are airdsAirs, bach, beach"):
        Music21Corpus(["abba", "bach"])
    with pytest.raises(ValueError, match="collections: none is given; there are airdsAirs"):
        Music21Corpus([])


@pytest.mark.slow
def test_all_chorales(tmp_path) -> None:
    module = PianoRollDataModule(source=BachChorales(), cache_dir=str(tmp_path), window=64)
    module.prepare_data()
    module.setup("fit")
    cache = module._cache
    assert cache is not None
    assert (len(cache.names), cache.errors, int(cache.steps.sum())) == (350, {}, 79348)
    used = np.flatnonzero(cache.notes.sum(axis=0))
    assert (used[0], used[-1]) == (36, 81)
    assert music21_corpus.VOICES == ("soprano", "alto", "tenor", "bass")
