"""What strikes and releases of keys, and the sustain pedal, make: notes.

Strikes (note-on) and releases (note-off, or note-on of velocity 0) make notes, on each track, channel and pitch by
itself:

- A strike ends the note that sounds, so a lost release changes the length of its own note and nothing else.
- A release ends what sounds, both notes where two were struck at one tick.
- A release at the tick of a strike that ended a note belongs to the note that was ended: some programs write the
  strike first.
- A note that nothing ends lasts until its track ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Strike = tuple[int, int, int]  # tick, voice (channel * 128 + pitch), velocity (0 is a release)
SILENT: tuple[int, list[int], int] = (-1, [], 0)


def paired(strikes: list[Strike], end: int) -> list[tuple[int, int, int, int]]:
    """Pair strikes and releases to the notes of a track.

    Args:
        strikes: strikes and releases, in order.
        end: the track's last tick.

    Returns:
        Voice, start, end and velocity of each note; a note may have no length.
    """
    notes: list[tuple[int, int, int, int]] = []
    # Voice -> tick of its last strike, velocities that sound since then, and how many notes that strike ended.
    sounding: dict[int, tuple[int, list[int], int]] = {}
    for tick, voice, velocity in strikes:
        start, velocities, ended = sounding.get(voice, SILENT)
        if start == tick and velocity:
            velocities.append(velocity)
        elif start == tick and ended:
            sounding[voice] = start, velocities, ended - 1
        else:
            for sounded in velocities:
                notes.append((voice, start, tick, sounded))
            sounding[voice] = (tick, [velocity], len(velocities)) if velocity else SILENT
    for voice, (start, velocities, _) in sounding.items():
        notes += [(voice, start, end, sounded) for sounded in velocities]
    return notes


def sustained(notes: np.ndarray, channels: np.ndarray, pedals: Sequence[tuple[int, int, bool]]) -> np.ndarray:
    """Let notes ring while the sustain pedal is down: those that end meanwhile end when it comes up.

    A pedal holds the notes of its channel, of all tracks. At one tick it moves before notes end. If it never comes up
    again, notes last until the last note's end.

    Args:
        notes: structured array ``[n]`` of `litscale.music.notes.NOTE`, with ticks for steps.
        channels: channel of each note, int64 ``[n]``.
        pedals: tick, channel and whether the pedal is down from there on, sorted by tick.

    Returns:
        The notes, with other ends; they may overlap: `paint` ends them where their pitch is struck again.
    """
    notes, last = notes.copy(), int(notes["end"].max(initial=0))
    for channel in {channel for _, channel, _ in pedals}:
        moves = [(tick, down) for tick, which, down in pedals if which == channel]
        ticks, is_down = np.array([tick for tick, _ in moves]), np.array([down for _, down in moves])
        releases = np.append(ticks[~is_down], max(last, ticks[-1]))
        own = np.flatnonzero(channels == channel)
        ends = notes["end"][own]
        last_move = np.searchsorted(ticks, ends, side="right") - 1
        rings = (last_move >= 0) & is_down[last_move]
        following = np.minimum(np.searchsorted(releases, ends, side="right"), len(releases) - 1)
        notes["end"][own] = np.where(rings, np.maximum(releases[following], ends), ends)
    return notes
