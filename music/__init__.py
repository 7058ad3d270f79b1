"""Music without networks: piano rolls, MIDI, pictures, sound, statistics and baselines."""

from music.audio import render, write_wav
from music.baselines import IndependentPitches, RepeatOrRedraw
from music.midi import MidiError, from_pretty_midi, read_midi, to_pretty_midi, write_midi
from music.notes import notes, repair
from music.pictures import animation, picture
from music.renderer import RollRenderer
from music.roll import Roll, RollFormat
from music.statistics import statistics

__all__ = [
    "IndependentPitches",
    "MidiError",
    "RepeatOrRedraw",
    "Roll",
    "RollFormat",
    "RollRenderer",
    "animation",
    "from_pretty_midi",
    "notes",
    "picture",
    "read_midi",
    "render",
    "repair",
    "statistics",
    "to_pretty_midi",
    "write_midi",
    "write_wav",
]
