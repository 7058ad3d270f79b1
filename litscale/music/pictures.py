"""Pictures of rolls: time to the right, pitch upwards, velocity as colour.

The first step of a note is drawn full and the rest of it paler, with a gap before it, so struck notes tell
apart from held ones. Cells that were given are grey, what a model made is in colour. Pixels are set one by
one (numpy) and the writing is Pillow's; nothing here has global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from litscale.music.notes import notes
from litscale.music.roll import Roll, RollFormat
from litscale.storage.files import write_animation, write_image

LEFT, TOP, RIGHT, BOTTOM = 34, 26, 52, 12  # margins in pixels
PAPER = (255, 255, 255)
WHITE_KEY, BLACK_KEY = (252, 252, 253), (241, 243, 246)
GIVEN_WHITE_KEY, GIVEN_BLACK_KEY = (226, 229, 233), (217, 221, 226)
UNKNOWN = (196, 201, 222)
BEAT_LINE, OCTAVE_LINE, BAR_LINE = (230, 232, 236), (198, 203, 211), (160, 167, 178)
INK, FAINT_INK = (52, 58, 68), (112, 119, 130)
GIVEN_SOFT, GIVEN_LOUD = np.array([150, 156, 165]), np.array([62, 68, 78])
BLACK_KEYS = (1, 3, 6, 8, 10)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
HOLD_PALENESS = 0.45  # how far held cells go towards the paper


def picture(
    roll: Roll,
    path: str | Path | None = None,
    *,
    known: np.ndarray | None = None,
    unknown: np.ndarray | None = None,
    beats_per_bar: float | None = None,
    cell: tuple[int, int] | None = None,
) -> np.ndarray:
    """Draw a roll.

    Args:
        roll: any roll.
        path: where to write it as PNG as well; whole or not at all.
        known: bool ``[pitch, step]``, the cells that were given; drawn in grey.
        unknown: bool ``[pitch, step]``, the cells not made yet; drawn as blank shade.
        beats_per_bar: quarter notes between bar lines, which go to the nearest step; None is those of the format.
        cell: height and width of a cell in pixels; by default 6 by 8, narrower for more than 256 steps.

    Returns:
        uint8 RGB ``[height, width, 3]``; the size depends on the roll's shape and ``cell`` only.

    Raises:
        ValueError: a mask has another shape than the roll, or bars or the sides of a cell are too short.
        OSError: the file could not be written.
    """
    height, width = cell or (6, int(np.clip(2048 // max(roll.steps, 1), 2, 8)))
    if height < 1 or width < 1:
        raise ValueError(f"the sides of a cell must be at least 1, not {height} and {width}")
    for name, mask in (("known", known), ("unknown", unknown)):
        if mask is not None and mask.shape != roll.symbols.shape:
            raise ValueError(f"{name} has shape {mask.shape}, the roll {roll.symbols.shape}")
    bars = _bars(roll.format.with_meter(beats_per_bar), roll.steps)
    field = _field(roll, known, unknown, bars, (height, width))
    page = Image.new("RGB", (LEFT + field.shape[1] + RIGHT, TOP + field.shape[0] + BOTTOM), PAPER)
    page.paste(Image.fromarray(field), (LEFT, TOP))
    _label(page, roll, known is not None, bars, (height, width))
    if path is not None:
        write_image(path, page)
    return np.asarray(page)


def animation(
    frames: Sequence[np.ndarray],
    path: str | Path,
    form: RollFormat,
    *,
    known: np.ndarray | None = None,
    unknown: Sequence[np.ndarray] | None = None,
    beats_per_bar: float | None = None,
    seconds: float = 0.12,
    pause: float = 2.0,
) -> Path:
    """Write a GIF of a roll that comes into being; it repeats for ever.

    Args:
        frames: uint8 symbols ``[pitch, step]``, all of one shape, in order.
        path: where the GIF goes; whole or not at all.
        form: what the symbols mean.
        known: bool ``[pitch, step]``, the cells that were given from the start.
        unknown: for each frame, bool ``[pitch, step]``, the cells not made yet.
        beats_per_bar: see `picture`.
        seconds: how long a frame stays.
        pause: how long the last frame stays.

    Returns:
        The path written.

    Raises:
        ValueError: no frames, or shapes or lengths that do not match.
        OSError: the file could not be written.
    """
    if not len(frames):
        raise ValueError("no frames to animate")
    if unknown is not None and len(unknown) != len(frames):
        raise ValueError(f"{len(frames)} frames, but {len(unknown)} masks of unknown cells")
    pages = [
        Image.fromarray(
            picture(
                Roll(frame, form),
                known=known,
                unknown=None if unknown is None else unknown[index],
                beats_per_bar=beats_per_bar,
            )
        )
        for index, frame in enumerate(frames)
    ]
    # One palette for all frames, else colours flicker: from the first frame (shades) above the last (notes).
    both = Image.fromarray(np.concatenate([np.asarray(pages[0]), np.asarray(pages[-1])]))
    palette = both.quantize(256, dither=Image.Dither.NONE)
    quantized = (page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages)
    return write_animation(path, quantized, seconds, pause)


def _colours(velocity: np.ndarray) -> np.ndarray:
    """Return the colours of velocities, float ``[n, 3]``, 0..255: orange for soft notes, dark violet for loud ones."""
    # The ends of the map are too pale and too dark to be told from paper and ink.
    shade = matplotlib.colormaps["plasma"](0.86 - 0.8 * velocity / 127)
    return 255 * np.asarray(shade)[:, :3]


def _bars(form: RollFormat, steps: int) -> np.ndarray:
    """Return the steps where bars start, int64 ``[n]``, the first at 0; each start is rounded to the nearest step."""
    starts = np.floor(np.arange(0, max(steps, 1), form.steps_per_bar) + 0.5).astype(np.int64)
    return starts[starts < max(steps, 1)]


def _field(
    roll: Roll,
    known: np.ndarray | None,
    unknown: np.ndarray | None,
    bars: np.ndarray,
    cell: tuple[int, int],
) -> np.ndarray:
    """Draw the part inside the margins, uint8 ``[pitches * cell height, max(steps, 1) * cell width, 3]``."""
    height, width = cell
    form, rows = roll.format, roll.format.pitches
    black = np.isin((form.lowest_pitch + np.arange(rows)) % 12, BLACK_KEYS)
    size = (rows * height, max(roll.steps, 1) * width, 3)
    field, given = np.empty(size, np.uint8), np.empty(size, np.uint8)
    # Row 0 is the lowest pitch: the field is drawn upside down and turned over at the end.
    field[:] = np.repeat(np.where(black[:, None], BLACK_KEY, WHITE_KEY), height, axis=0)[:, None]
    given[:] = np.repeat(np.where(black[:, None], GIVEN_BLACK_KEY, GIVEN_WHITE_KEY), height, axis=0)[:, None]
    # Beats are counted from each bar line: bars of 7/8 end within one.
    ends = [*bars[1:], max(roll.steps, 1)]
    beats = [beat * width for bar, end in zip(bars, ends, strict=True) for beat in range(bar, end, form.steps_per_beat)]
    octaves = [row * height for row in range(1, rows) if (form.lowest_pitch + row) % 12 == 0]
    for layer in (field, given):
        layer[:, beats] = np.minimum(layer[:, beats], BEAT_LINE)
        layer[octaves] = OCTAVE_LINE
        layer[:, bars * width] = BAR_LINE

    played = notes(roll)
    colours = _colours(played["velocity"])
    greys = GIVEN_SOFT + (GIVEN_LOUD - GIVEN_SOFT) * played["velocity"][:, None] / 127
    paint_gap = min(1, width - 1)
    for note, colour, grey in zip(played, colours, greys, strict=True):
        bottom = (note["pitch"] - form.lowest_pitch) * height
        vertical = slice(bottom + min(1, height - 1), bottom + height)
        left, right = note["start"] * width + paint_gap, note["end"] * width
        for layer, full in ((field, colour), (given, grey)):
            layer[vertical, left:right] = full + HOLD_PALENESS * (255 - full)
            layer[vertical, left : note["start"] * width + width] = full

    def enlarged(mask: np.ndarray) -> np.ndarray:
        return mask.astype(bool).repeat(height, axis=0).repeat(width, axis=1)

    if roll.steps and known is not None:
        field[enlarged(known)] = given[enlarged(known)]
    if roll.steps and unknown is not None:
        field[enlarged(unknown)] = UNKNOWN
    return field[::-1]


def _label(page: Image.Image, roll: Roll, has_known: bool, bars: np.ndarray, cell: tuple[int, int]) -> None:
    """Write octaves, bar numbers and the legend into the margins."""
    height, width = cell
    form = roll.format
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(11), ImageFont.load_default(10)
    floor = page.height - BOTTOM
    for row in range(form.pitches):
        pitch = form.lowest_pitch + row
        if pitch % 12 == 0:
            draw.text((LEFT - 6, floor - (row + 0.5) * height), f"C{pitch // 12 - 1}", INK, font, "rm")
    # Numbers closer than 28 pixels run into each other.
    every = 1 if len(bars) < 2 else max(1, -(-28 // int(np.diff(bars).min() * width)))
    for index in range(0, len(bars) if roll.steps else 0, every):
        draw.text((LEFT + bars[index] * width + 2, TOP - 4), str(index + 1), FAINT_INK, small, "ls")
    if has_known:
        right = page.width - RIGHT
        draw.rectangle((right - 42, 5, right - 33, 14), GIVEN_WHITE_KEY, BAR_LINE)
        draw.text((right - 29, 14), "given", FAINT_INK, small, "ls")
    if form.encoding != "binary" and form.velocity_bins > 1:
        _velocity_bar(page, draw, small)


def _velocity_bar(page: Image.Image, draw: ImageDraw.ImageDraw, font: Font) -> None:
    """Draw the scale of velocities, right of the field."""
    left, tall = page.width - RIGHT + 10, min(127, page.height - TOP - BOTTOM)
    scale = _colours(np.linspace(127, 1, tall)).astype(np.uint8)
    page.paste(Image.fromarray(np.repeat(scale[:, None], 8, axis=1)), (left, TOP))
    draw.text((left + 12, TOP), "127", FAINT_INK, font, "lt")
    draw.text((left + 12, TOP + tall), "1", FAINT_INK, font, "lb")
    if tall > 60:
        draw.text((left + 12, TOP + tall / 2), "vel.", FAINT_INK, font, "lm")
