"""Which rolls to generate: options of the command line, checked and turned into what is given.

Dimensions: H pitch rows (row 0 the lowest), L steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from datamodules.requests import titled
from litscale import music
from litscale.music.roll import Roll, RollFormat


@dataclass(frozen=True)
class GenerationRequest:
    """What ``litscale predict`` generates: from nothing, on from a prefix, or a region of a piece.

    Args:
        num_samples: number of samples, each with its own noise.
        length: number of steps of a sample; None is the window that the model was trained on. A model accepts
            multiples of its largest patch.
        prefix: a MIDI file to continue; its first steps become the first steps of every sample.
        prefix_steps: number of steps of ``prefix`` to keep; None is the whole piece.
        inpaint: a MIDI file of which a region is regenerated to fit the rest: its first ``length`` steps.
        region: first and last step (not included) to regenerate in ``inpaint``; None is all of them.
        region_pitches: lowest and highest MIDI pitch (both included) to regenerate in ``inpaint``; None is all of them.
        label: name or number of the class to generate (a name, if it is both); None is no class.
        seed: seed of the noise; sample k is the same in batches of any size.
    """

    num_samples: int = 4
    length: int | None = None
    prefix: str | None = None
    prefix_steps: int | None = None
    inpaint: str | None = None
    region: tuple[int, int] | None = None
    region_pitches: tuple[int, int] | None = None
    label: int | str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"predict.num_samples must be at least 1, not {self.num_samples}")
        if self.length is not None and self.length < 1:
            raise ValueError(f"predict.length must be at least 1 step, not {self.length}")
        if self.prefix is not None and self.inpaint is not None:
            raise ValueError("predict.prefix and predict.inpaint are both given; set one of them to null")
        if self.prefix_steps is not None and self.prefix is None:
            raise ValueError("predict.prefix_steps is given without predict.prefix; give the MIDI file to continue")
        if self.prefix_steps is not None and self.prefix_steps < 1:
            raise ValueError(f"predict.prefix_steps must be at least 1, not {self.prefix_steps}")
        if self.inpaint is None and (self.region is not None or self.region_pitches is not None):
            raise ValueError("predict.region and predict.region_pitches need predict.inpaint, the MIDI file to change")
        if self.inpaint is not None and self.region is None and self.region_pitches is None:
            raise ValueError(
                "predict.inpaint would keep nothing of the file: give predict.region, predict.region_pitches or both"
            )

    @property
    def given(self) -> str | None:
        """The MIDI file that samples keep a part of, None without one."""
        return self.prefix if self.prefix is not None else self.inpaint

    @property
    def labels(self) -> list[int] | None:
        """The class to generate, as a list; None without one, or if it is given by its name."""
        return [self.label] if isinstance(self.label, int) else None

    @property
    def title(self) -> str:
        """A name like ``prefix_song_64_steps``, ``inpaint_song_steps_4_8``, ``label_3``, ``samples``; then the seed."""
        words: list[object] = []
        if self.prefix is not None:
            words += ["prefix", Path(self.prefix).stem]
            words += [] if self.prefix_steps is None else [self.prefix_steps, "steps"]
        if self.inpaint is not None:
            words += ["inpaint", Path(self.inpaint).stem]
            words += [] if self.region is None else ["steps", *self.region]
            words += [] if self.region_pitches is None else ["pitches", *self.region_pitches]
        words += [] if self.label is None else ["label", self.label]
        return titled(words, self.seed)


def request_canvas(
    request: GenerationRequest, form: RollFormat, window: int, read: Callable[[str], Roll]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the symbols that a request gives, and where they are.

    A note that starts in a region and lasts beyond it is given from the region's end on, as a hold.

    Args:
        request: the options.
        form: rows and symbols of the canvas.
        window: length where the request states none, in steps.
        read: MIDI file -> roll over 128 pitches in this encoding.

    Returns:
        Symbols, uint8 ``[H, L]``, 0 where nothing is given; and which are given, bool ``[H, L]``.

    Raises:
        ValueError: a prefix or region does not fit the file or the length; the message names the option and what to do.
        FileNotFoundError: there is no such file.
    """
    length = request.length if request.length is not None else window
    canvas = np.zeros((form.pitches, length), dtype=np.uint8)
    known = np.zeros_like(canvas, dtype=bool)
    if request.prefix is not None:
        symbols = _read("prefix", request.prefix, read, form)
        steps = _prefix_steps(request, symbols.shape[1], length)
        canvas[:, :steps] = symbols[:, :steps]
        known[:, :steps] = True
    if request.inpaint is not None:
        symbols = _read("inpaint", request.inpaint, read, form)
        if symbols.shape[1] < length:
            raise ValueError(
                f"predict.inpaint: {request.inpaint} has {symbols.shape[1]} steps, fewer than the {length} of a "
                f"sample; set predict.length to at most {symbols.shape[1]}"
            )
        known[:] = True
        known[_region(request, form, length)] = False
        canvas[:] = np.where(known, symbols[:, :length], 0)
    return canvas, known


def _read(option: str, path: str, read: Callable[[str], Roll], form: RollFormat) -> np.ndarray:
    """Read the symbols of a file on the pitches of the canvas, uint8 ``[H, steps]``; errors name the option."""
    try:
        roll = read(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"predict.{option}: there is no file {path}") from error
    except music.MidiError as error:
        raise ValueError(f"predict.{option}: {error}; give a MIDI file with notes") from error
    pitches = music.notes(roll)["pitch"]
    if not len(pitches):
        raise ValueError(f"predict.{option}: {path} has no notes; give a MIDI file with notes")
    low, high = form.lowest_pitch, form.lowest_pitch + form.pitches - 1
    outside = int(((pitches < low) | (pitches > high)).sum())
    if outside == len(pitches):
        raise ValueError(f"predict.{option}: all notes of {path} are outside of pitch_range {low}..{high}")
    if outside:
        rank_zero_warn(f"pitch_range {low}..{high} cuts {outside} of {len(pitches)} notes of {path}")
    return roll.symbols[low : high + 1]


def _prefix_steps(request: GenerationRequest, available: int, length: int) -> int:
    """Return how many steps to take from the prefix; raises ValueError if they do not fit."""
    steps = request.prefix_steps if request.prefix_steps is not None else available
    if steps > available:
        raise ValueError(
            f"predict.prefix_steps is {steps}, but {request.prefix} has {available} steps; take at most those"
        )
    if steps >= length:
        raise ValueError(
            f"predict.prefix: {steps} steps of {request.prefix} leave nothing to generate in {length} steps; set "
            f"predict.prefix_steps below {length}, or predict.length above {steps}"
        )
    return steps


def _region(request: GenerationRequest, form: RollFormat, length: int) -> tuple[slice, slice]:
    """Return the rows and steps to generate; raises ValueError if they do not fit the canvas."""
    start, end = request.region if request.region is not None else (0, length)
    if not 0 <= start < end <= length:
        raise ValueError(
            f"predict.region is {start}..{end}, but must lie in the {length} steps of a sample from {request.inpaint}: "
            f"0 <= start < end <= {length}; predict.length changes the number of steps"
        )
    highest = form.lowest_pitch + form.pitches - 1
    low, high = request.region_pitches if request.region_pitches is not None else (form.lowest_pitch, highest)
    if not form.lowest_pitch <= low <= high <= highest:
        raise ValueError(
            f"predict.region_pitches is {low}..{high}, but must lie in the pitches of the canvas, {form.lowest_pitch}.."
            f"{highest} (lower first); pitch_range changes those"
        )
    return slice(low - form.lowest_pitch, high - form.lowest_pitch + 1), slice(start, end)
