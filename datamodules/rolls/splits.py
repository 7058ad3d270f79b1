"""Which pieces train, which validate and which test."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.messages import abridged
from datamodules.rolls.cache import RollCache

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """How pieces are shared out. The options are those of `PianoRollDataModule`.

    Args:
        val_fraction: see there.
        test_fraction: see there.
        lists: ``split_files`` there; it overrides all others.
        published: gives the split of each piece as its source publishes it, which overrides the fractions; None if the
            source has no splits.

    Raises:
        ValueError: a share is impossible, or ``lists`` names an unknown split.
    """

    val_fraction: float
    test_fraction: float
    lists: Mapping[str, Sequence[str] | str] | None
    published: Callable[[], Mapping[str, str] | None] = lambda: None

    def __post_init__(self) -> None:
        fractions = (self.val_fraction, self.test_fraction)
        if min(fractions) < 0 or sum(fractions) >= 1:
            raise ValueError(
                f"val_fraction and test_fraction are {self.val_fraction} and {self.test_fraction}; they must be at "
                "least 0 and leave something to train on"
            )
        if unknown := sorted(set(self.lists or ()) - set(SPLITS)):
            raise ValueError(f"split_files: {abridged(unknown)} is not a split; the splits are {', '.join(SPLITS)}")

    def wants(self, split: str) -> bool:
        """Return whether the options ask for this split."""
        if self.lists is not None:
            return split in self.lists
        if (published := self.published()) is not None:
            return split in published.values()
        return split == "train" or self._fraction(split) > 0

    def pieces(self, cache: RollCache, split: str, window: int, short: bool = False) -> np.ndarray:
        """Return the pieces of a split that are at least a window long.

        Args:
            cache: all pieces.
            split: ``train``, ``val`` or ``test``.
            window: steps.
            short: also return those that are shorter.

        Returns:
            Indices into the cache, int64 ``[n]``, ``n >= 1``.

        Raises:
            ValueError: there are none, or the lists do not fit the files; the message names the option.
            FileNotFoundError: no such text file.
        """
        # 1. the splits of all pieces
        if self.lists is not None:
            assigned = split_by_lists([*cache.names, *cache.errors], self.lists)
        elif (published := self.published()) is not None:
            assigned = dict(published)
        else:
            assigned = {name: split_by_hash(name, self.val_fraction, self.test_fraction) for name in cache.names}
        # 2. the pieces of this one
        chosen = np.array([i for i, name in enumerate(cache.names) if assigned.get(name) == split], np.int64)
        if not len(chosen):
            if self.lists is None and self.published() is not None:
                raise ValueError(
                    f"the source was published without a {split} split: "
                    + ("run litscale validate, or " if split == "test" else "")
                    + f"list pieces for {split} in data.split_files"
                )
            raise ValueError(f"no piece of {len(cache.names)} is in the {split} split: {self._mend(split)}")
        # 3. those that are long enough
        lengths = cache.steps[chosen]
        if lengths.max() < window:
            raise ValueError(
                f"window: {window} steps are more than any piece of the {split} split has; set window to at most "
                f"{lengths.max()}"
            )
        if short:
            return chosen
        if left_out := int((lengths < window).sum()):
            rank_zero_info(
                f"{split}: {left_out} of {len(chosen)} pieces are shorter than a window ({window} steps) and left out"
            )
        return chosen[lengths >= window]

    def _mend(self, split: str) -> str:
        """Say what to change when a split is empty."""
        if self.lists is not None:
            return f"list readable files for {split} in split_files"
        if split == "train":
            return "lower val_fraction or test_fraction, add files, or list them in split_files"
        return f"raise {split}_fraction (now {self._fraction(split)}), add files, or list them in split_files"

    def _fraction(self, split: str) -> float:
        """Return the share of the pieces in ``val`` or ``test``."""
        return self.val_fraction if split == "val" else self.test_fraction


def split_by_hash(name: str, val_fraction: float, test_fraction: float) -> str:
    """Return the split of a piece, which depends on the arguments alone, so that more files never move it.

    Returns:
        ``train``, ``val`` or ``test``.
    """
    share = int.from_bytes(sha256(os.fsencode(name)).digest()[:8]) / 2**64
    if share < test_fraction:
        return "test"
    return "val" if share < test_fraction + val_fraction else "train"


def split_by_lists(names: Sequence[str], lists: Mapping[str, Sequence[str] | str]) -> dict[str, str]:
    """Return the splits of pieces that are listed.

    Args:
        names: all pieces.
        lists: split -> names or patterns (``train/*``), or a text file with one of them per line (empty lines and
            lines that start with ``#`` are left out).

    Returns:
        Name -> ``train``, ``val`` or ``test``; a piece in no list is missing.

    Raises:
        ValueError: an entry fits no piece, or a piece is in two splits.
        FileNotFoundError: no such text file.
    """
    result: dict[str, str] = {}
    known = set(names)
    for split, given in lists.items():
        for entry in _lines(given) if isinstance(given, str) else given:
            fitting = [entry] if entry in known else [name for name in names if fnmatchcase(name, entry)]
            if not fitting:
                raise ValueError(
                    f"split_files: {entry} ({split}) matches none of the pieces, which are named like "
                    f"{abridged(names[:2])}"
                )
            for name in fitting:
                if result.setdefault(name, split) != split:
                    raise ValueError(
                        f"split_files: {name} is in both {result[name]} and {split}; keep it in one of them"
                    )
    return result


def _lines(path: str) -> list[str]:
    """Read the entries of a text file."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"split_files: there is no text file {path}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
