"""Image canvases as pictures, files and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datamodules.images.decoding import centre_crop, decode
from litscale.storage.files import write_animation, write_image

LEAST_PIXELS, LEAST_CELL = 128, 64  # of the side of a picture, and of an image on a sheet
PAPER, UNKNOWN, EDGE, INK = (255, 255, 255), (196, 201, 222), (255, 64, 64), (0, 0, 0)
GAP = 2  # pixels between the images of a sheet
CAPTION = 12  # pixels of the line below an image


class ImageRenderer:
    """Shows canvases ``[C, H, W]`` of pixels; one channel is shown grey.

    Methods that take symbols raise ValueError if they are not uint8 with these channels.

    Args:
        channels: 3 for RGB, 1 for grey.
        size: side of the canvases that `read` makes, in pixels.
    """

    def __init__(self, channels: int, size: int) -> None:
        self.channels = channels
        self.size = size

    def picture(
        self, symbols: np.ndarray, known: np.ndarray | None = None, unknown: np.ndarray | None = None
    ) -> np.ndarray:
        """Draw an image to look at; small ones are enlarged, each pixel to a square.

        Args:
            symbols: uint8 ``[C, H, W]``.
            known: bool ``[C, H, W]``, the cells that were given; their border is drawn red.
            unknown: bool ``[C, H, W]``, the cells not made yet; drawn as blank shade.

        Returns:
            uint8 RGB ``[height, width, 3]``, at least 128 pixels high and wide.
        """
        page = _enlarged(self._shaded(symbols, unknown), LEAST_PIXELS)
        if known is not None:
            page[_border(_enlarged(_any_channel(known), LEAST_PIXELS))] = EDGE
        return page

    def sheet(
        self,
        canvases: np.ndarray,
        columns: int = 8,
        unknown: np.ndarray | None = None,
        names: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Draw images side by side, row after row.

        Args:
            canvases: uint8 ``[N, C, H, W]``.
            columns: images of a row.
            unknown: bool ``[N, C, H, W]``, cells not made yet; drawn as blank shade.
            names: a word for each image, written below it.

        Returns:
            uint8 RGB ``[height, width, 3]``; images are at least 64 pixels wide, 2 pixels apart.

        Raises:
            ValueError: no images or no columns.
        """
        if not len(canvases) or columns < 1:
            raise ValueError(f"a sheet needs images and columns, not {len(canvases)} and {columns}")
        masks = [None] * len(canvases) if unknown is None else unknown
        cells = [
            _enlarged(self._shaded(canvas, mask), LEAST_CELL) for canvas, mask in zip(canvases, masks, strict=True)
        ]
        if names is not None:
            cells = [np.concatenate([cell, _caption(n, cell.shape[1])]) for cell, n in zip(cells, names, strict=True)]
        columns = min(columns, len(cells))
        rows = -(-len(cells) // columns)
        height, width = cells[0].shape[0] + GAP, cells[0].shape[1] + GAP
        page = np.full((rows * height + GAP, columns * width + GAP, 3), PAPER, np.uint8)
        for k, cell in enumerate(cells):
            top, left = GAP + k // columns * height, GAP + k % columns * width
            page[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        return page

    def statistics(self, symbols: np.ndarray) -> dict[str, float]:
        """Compute statistics of one image, uint8 ``[C, H, W]``, in units of the full range 0..255.

        Returns:
            ``brightness`` (mean), ``contrast`` (standard deviation) and ``roughness`` (mean absolute difference of
            neighbours; 0.33 for independent noise, 0 for one colour).
        """
        values = self._checked(symbols).astype(np.float64) / 255
        steps = [np.abs(np.diff(values, axis=axis)).ravel() for axis in (1, 2)]
        differences = np.concatenate(steps)
        return {
            "brightness": float(values.mean()),
            "contrast": float(values.std()),
            "roughness": float(differences.mean()) if len(differences) else 0.0,
        }

    def check(self, wav: bool = False, score: bool = False) -> None:
        """Refuse kinds of files that images cannot be written as.

        Raises:
            ValueError: sound or a score is wanted.
        """
        if wav:
            raise ValueError("wav: images have no sound; set wav to false")
        if score:
            raise ValueError("score: images have no score; set score to false")

    def save(
        self,
        symbols: np.ndarray,
        stem: str | Path,
        known: np.ndarray | None = None,
        frames: Sequence[np.ndarray] | None = None,
        wav: bool = False,
        unknown: Sequence[np.ndarray] | None = None,
        score: bool = False,
    ) -> list[Path]:
        """Write ``stem.png``, pixel for pixel, and on demand ``stem.gif``.

        Args:
            symbols: uint8 ``[C, H, W]``.
            stem: path without an ending; its folder must exist.
            known: bool ``[C, H, W]``, the cells that were given; shown in the GIF only.
            frames: uint8 ``[C, H, W]`` each, the symbols as they came into being, for the GIF.
            wav: must be False.
            unknown: for each frame, bool ``[C, H, W]``, the cells not made yet.
            score: must be False.

        Returns:
            The paths written.

        Raises:
            ValueError: sound or a score is wanted.
            OSError: a file could not be written; the error names it.
        """
        self.check(wav, score)
        pixels, stem = self._checked(symbols), Path(stem)
        image = Image.fromarray(pixels[0] if self.channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        paths = [write_image(f"{stem}.png", image)]
        if frames:
            masks = [None] * len(frames) if unknown is None else unknown
            pages = [self.picture(frame, known, mask) for frame, mask in zip(frames, masks, strict=True)]
            paths.append(write_animation(f"{stem}.gif", map(Image.fromarray, pages)))
        return paths

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image; one of another size is reduced (or enlarged) and cut as training images are.

        Args:
            path: an image file.

        Returns:
            uint8 ``[C, size, size]``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read as an image.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        image = decode(Path(path), str(path))
        pixels = centre_crop(image.convert("L") if self.channels == 1 else image, self.size)
        return np.ascontiguousarray(pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1))

    def _checked(self, symbols: np.ndarray) -> np.ndarray:
        symbols = np.asarray(symbols)
        if symbols.ndim != 3 or len(symbols) != self.channels or symbols.dtype != np.uint8:
            raise ValueError(
                f"symbols must be uint8 [{self.channels}, H, W], not {symbols.dtype} {list(symbols.shape)}"
            )
        return symbols

    def _shaded(self, symbols: np.ndarray, unknown: np.ndarray | None) -> np.ndarray:
        """Return symbols as uint8 ``[H, W, 3]``, shaded where any channel is unknown."""
        page = self._rgb(symbols)
        if unknown is None:
            return page
        return np.where(_any_channel(unknown)[..., None], np.array(UNKNOWN, np.uint8), page)

    def _rgb(self, symbols: np.ndarray) -> np.ndarray:
        """Return symbols as uint8 ``[H, W, 3]``."""
        pixels = self._checked(symbols).transpose(1, 2, 0)
        return np.repeat(pixels, 3, axis=2) if self.channels == 1 else pixels


def _caption(name: str, width: int) -> np.ndarray:
    """Draw a line of text, uint8 RGB ``[CAPTION, width, 3]``; text that is too wide is cut off at the end."""
    line = Image.new("RGB", (width, CAPTION), PAPER)
    ImageDraw.Draw(line).text((1, 0), name, fill=INK, font=ImageFont.load_default(size=CAPTION - 2))
    return np.asarray(line)


def _any_channel(mask: np.ndarray) -> np.ndarray:
    """Return where any channel of a mask ``[C, h, w]`` is true, bool ``[h, w]``."""
    return np.logical_or.reduce(np.asarray(mask).astype(bool), axis=0)


def _enlarged(page: np.ndarray, least: int) -> np.ndarray:
    """Copy ``[h, w, ...]`` into a larger array whose shorter side is at least so long, each pixel a square."""
    factor = -(-least // min(page.shape[:2]))
    return page.repeat(max(factor, 1), axis=0).repeat(max(factor, 1), axis=1)


def _border(inside: np.ndarray) -> np.ndarray:
    """Return the cells of a mask ``[h, w]`` that have a neighbour outside of it."""
    border = np.zeros_like(inside)
    down, right = inside[1:] != inside[:-1], inside[:, 1:] != inside[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border & inside
