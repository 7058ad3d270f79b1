"""Requests for samples of any kind of data: their batches for ``predict_step``, and their record.

Dimensions: B samples, C channels, H rows and L columns of a canvas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from litscale.storage.fingerprints import of_file


@dataclass(frozen=True)
class RequestRecord:
    """A request as it is recorded beside the samples.

    Attributes:
        title: a few words for the name of a folder, letters, digits, ``_`` and ``-``.
        options: all that the samples depend on beside model and weights; JSON values.
    """

    title: str
    options: dict[str, Any]


def titled(words: Sequence[object], seed: int) -> str:
    """Join words to a part of a file name: ``samples`` if there are none, followed by a seed that is not 0."""
    words = [*(words or ["samples"]), *(["seed", seed] if seed else [])]
    return re.sub(r"[^A-Za-z0-9-]+", "_", "_".join(map(str, words)))[:80]


class Request(Protocol):
    """What `Requests` asks of the options of any kind of data, a dataclass; see `datamodules.GenerationRequest`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def title(self) -> str: ...

    @property
    def num_samples(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def labels(self) -> list[int] | None: ...


class Requests(Dataset):
    """Batches of requests: item k is a whole batch, the same for any number of ranks.

    A batch is a dict: ``canvas`` uint8 ``[B, C, H, L]``, ``known`` bool of that shape, ``index`` int64 ``[B]``,
    ``seed`` int, and ``label`` int64 ``[B]`` if classes are asked for.

    Args:
        request: the options; sample k is of class ``labels[k % len(labels)]``.
        canvas: symbols that are given, uint8 ``[C, H, L]``, or ``[H, L]`` for one channel.
        known: where they are, bool, of the same shape.
        batch_size: samples of a batch; the last one may have fewer.
    """

    def __init__(self, request: Request, canvas: np.ndarray, known: np.ndarray, batch_size: int) -> None:
        self.request = request
        self.canvas = torch.from_numpy(canvas).reshape(-1, *canvas.shape[-2:])
        self.known = torch.from_numpy(known).reshape(self.canvas.shape)
        self.labels = None if request.labels is None else torch.tensor(request.labels)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-self.request.num_samples // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        first = number * self.batch_size
        index = torch.arange(first, min(first + self.batch_size, self.request.num_samples))
        batch: dict[str, Any] = {
            "canvas": self.canvas.repeat(len(index), 1, 1, 1),  # [B, C, H, L]
            "known": self.known.repeat(len(index), 1, 1, 1),  # [B, C, H, L]
            "index": index,
            "seed": self.request.seed,
        }
        if self.labels is not None:
            batch["label"] = self.labels[index % len(self.labels)]
        return batch


def recorded(request: Request, batches: Requests, **more: Any) -> RequestRecord:
    """Return the record of a request: its options, and hashes of the files that it names and of the cells in them.

    Args:
        request: the options.
        batches: the batches of the request.
        **more: what the data module adds to, or puts in place of, the request's own options.

    Raises:
        OSError: a file that the request names can no longer be read.
    """
    options: dict[str, Any] = {**asdict(request), **more, "batch_size": batches.batch_size}
    for name in ("prefix", "inpaint"):
        if (path := options.get(name)) is not None:
            options[f"{name}_sha256"] = of_file(path)
            # The same file means other cells where encoding, grid or pitches differ.
            given = np.stack([batches.canvas.numpy(), batches.known.numpy()])
            options["given_sha256"] = sha256(given.tobytes()).hexdigest()
    return RequestRecord(request.title, options)
