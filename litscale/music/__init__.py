"""Music without networks: piano rolls, MIDI, pictures, sound, statistics and baselines."""

from litscale.music.audio import Sound, render, write_wav
from litscale.music.baselines import IndependentPitches, RepeatOrRedraw
from litscale.music.copying import longest_runs
from litscale.music.features import features
from litscale.music.midi import MidiError, from_pretty_midi, read_midi, to_pretty_midi, write_midi
from litscale.music.nearest_classes import nearest_classes
from litscale.music.notes import notes, repair
from litscale.music.pictures import animation, picture
from litscale.music.renderer import RollRenderer
from litscale.music.roll import Roll, RollFormat
from litscale.music.score import write_score
from litscale.music.set_distances import set_distances
from litscale.music.statistics import statistics

__all__ = [
    "IndependentPitches",
    "MidiError",
    "RepeatOrRedraw",
    "Roll",
    "RollFormat",
    "RollRenderer",
    "Sound",
    "animation",
    "features",
    "from_pretty_midi",
    "longest_runs",
    "nearest_classes",
    "notes",
    "picture",
    "read_midi",
    "render",
    "repair",
    "set_distances",
    "statistics",
    "to_pretty_midi",
    "write_midi",
    "write_score",
    "write_wav",
]
