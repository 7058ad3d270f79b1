"""Which images to generate: options of the command line, checked and turned into batches for ``predict_step``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datamodules.images.renderer import ImageRenderer
from datamodules.requests import Requests, titled


@dataclass(frozen=True)
class ImageRequest:
    """What ``litscale predict`` generates: images from nothing, or a region of an image.

    Args:
        num_samples: number of samples, each with its own noise; a multiple of the number of classes gives each class
            equally many.
        labels: classes to generate, in turn: sample k is of ``labels[k % len(labels)]``. None is all classes in turn,
            or no class where the data has none.
        unconditional: generate without a class from a model that has classes.
        inpaint: an image of which a region is regenerated to fit the rest; an image of another size than the canvas
            is resized and cropped like training images.
        region: top, left, bottom and right (the last two not included) of the part of ``inpaint`` to regenerate, in
            pixels of the canvas.
        seed: seed of the noise; sample k is the same in batches of any size.
    """

    num_samples: int = 16
    labels: list[int] | None = None
    unconditional: bool = False
    inpaint: str | None = None
    region: tuple[int, int, int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"predict.num_samples must be at least 1, not {self.num_samples}")
        if self.labels is not None and not self.labels:
            raise ValueError("predict.labels is empty; list classes, or set it to null for all of them in turn")
        if self.labels is not None and self.unconditional:
            raise ValueError("predict.labels and predict.unconditional are both given; set one of them to null")
        if (self.inpaint is None) != (self.region is None):
            raise ValueError(
                "give predict.inpaint, the image to change, and predict.region, the part to regenerate, together"
            )

    @property
    def title(self) -> str:
        """A name like ``labels_3_1_4``, ``inpaint_photo_0_0_8_8``, ``unconditional`` or ``samples``; then the seed."""
        words: list[object] = []
        if self.inpaint is not None and self.region is not None:
            words += ["inpaint", Path(self.inpaint).stem, *self.region]
        words += [] if self.labels is None else ["labels", *self.labels]
        words += ["unconditional"] if self.unconditional else []
        return titled(words, self.seed)

    def check_labels(self, num_classes: int) -> None:
        """Raise ValueError if the data lacks a class that is asked for."""
        if self.labels is None:
            return
        if not num_classes:
            raise ValueError("predict.labels is given, but the data has no classes; set labels to true, or it to null")
        if wrong := [label for label in self.labels if not 0 <= label < num_classes]:
            raise ValueError(f"predict.labels has {wrong[0]}, but must be in 0..{num_classes - 1}")


def image_requests(request: ImageRequest, renderer: ImageRenderer, num_classes: int, batch_size: int) -> Requests:
    """Return the batches of a request.

    Args:
        request: the options.
        renderer: reads images.
        num_classes: classes of the data, 0 for none.
        batch_size: samples of a batch; the last one may have fewer.

    Raises:
        ValueError: there is no such class, the region is not in the canvas, or the image cannot be read.
        FileNotFoundError: there is no such image.
    """
    request.check_labels(num_classes)
    if request.labels is None and num_classes and not request.unconditional:
        request = replace(request, labels=list(range(num_classes)))
    canvas = np.zeros((renderer.channels, renderer.size, renderer.size), np.uint8)
    known = np.zeros_like(canvas, bool)
    if request.inpaint is not None and request.region is not None:
        top, left, bottom, right = request.region
        if not (0 <= top < bottom <= renderer.size and 0 <= left < right <= renderer.size):
            raise ValueError(
                f"predict.region is {top}, {left}, {bottom}, {right}, but must be top, left, bottom and right within "
                f"the {renderer.size} pixels of the canvas: 0 <= top < bottom <= {renderer.size}, and likewise left < "
                "right"
            )
        try:
            symbols = renderer.read(request.inpaint)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"predict.inpaint: there is no file {request.inpaint}") from error
        except ValueError as error:
            raise ValueError(f"predict.inpaint: {error}; give an image") from error
        known[:] = True
        known[:, top:bottom, left:right] = False
        canvas = np.where(known, symbols, 0).astype(np.uint8)
    return Requests(request, canvas, known, batch_size)
