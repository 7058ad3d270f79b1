"""Figures of matplotlib as files and pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from litscale.storage.files import write_atomically


def write_picture(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path.

    Raises:
        OSError: the file could not be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_atomically(path, buffer.getvalue())


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as uint8 RGB ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
