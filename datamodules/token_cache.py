"""Tokens of images on disk: written once by a tokenizer, read by every epoch of a transformer's training.

A cache is a folder:

    index.json          which tokenizer wrote it (its checksum, ``patch_nums``, ``vocab``), number of classes, and for
                        each split the number of its shards
    train_00000.npy     tokens of the images of one shard, int16 or int32 ``[n, L]``, all scales joined
    train_00000.json    their labels, and a checksum of both

The index is known before the first shard is written, and a shard is there once its ``.json`` is; so any number of
processes write shards without waiting for each other, and one that is killed goes on where it was.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from litscale.storage.files import write_atomically

INDEX = "index.json"


@dataclass(frozen=True)
class TokenFacts:
    """What a cache says of itself.

    Attributes:
        tokenizer: checksum of the tokenizer's weights.
        patch_nums: side of each scale's token map.
        vocab: number of codes.
        num_classes: number of classes, 0 without labels.
        shards: split -> number of its shards.
    """

    tokenizer: str
    patch_nums: list[int]
    vocab: int
    num_classes: int
    shards: dict[str, int]

    @property
    def length(self) -> int:
        """Tokens of an image, L."""
        return sum(side**2 for side in self.patch_nums)

    def write(self, folder: Path) -> None:
        """Write the index; OSError if that fails."""
        write_atomically(folder / INDEX, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> TokenFacts:
        """Read the index.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        path = folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(
                f"folder: {folder} is no token cache, it has no {INDEX}; write one with litscale predict, a tokenizer "
                "and callbacks.TokenWriter"
            )
        try:
            return cls(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): write the cache anew with litscale predict") from error


@dataclass
class Shard:
    """One shard.

    Attributes:
        tokens: ``[n, L]``, memory-mapped, read-only.
        labels: int64 ``[n]``, or None.
    """

    tokens: np.ndarray
    labels: np.ndarray | None


def shard_paths(folder: Path, split: str, number: int) -> tuple[Path, Path]:
    """Tokens and record of a shard."""
    stem = f"{split}_{number:05d}"
    return folder / f"{stem}.npy", folder / f"{stem}.json"


def write_shard(folder: Path, split: str, number: int, tokens: np.ndarray, labels: np.ndarray | None) -> None:
    """Write a shard; it is there whole or not at all.

    Args:
        folder: of the cache; must exist.
        split: ``train``, ``val`` or ``test``.
        number: of the shard.
        tokens: integers ``[n, L]``.
        labels: integers ``[n]``, or None.

    Raises:
        OSError: the disk is full, or the folder not writable.
    """
    path, record = shard_paths(folder, split, number)
    narrow = np.int16 if not tokens.size or tokens.max() < 2**15 else np.int32
    buffer = io.BytesIO()
    np.save(buffer, tokens.astype(narrow), allow_pickle=False)
    listed = None if labels is None else [int(label) for label in labels]
    record.unlink(missing_ok=True)  # the old record must not vouch for new tokens
    write_atomically(path, buffer.getvalue())
    described = {"count": len(tokens), "labels": listed, "sha256": _hash(buffer.getvalue(), listed)}
    write_atomically(record, (json.dumps(described) + "\n").encode())


def read_shard(folder: Path, facts: TokenFacts, split: str, number: int, verify: bool = False) -> Shard:
    """Open a shard.

    Args:
        folder: of the cache.
        facts: its index.
        split: of the shard.
        number: of the shard.
        verify: read all of it and compare checksums.

    Raises:
        ValueError: it is missing, truncated or damaged, or its labels or tokens are out of range.
    """
    path, record = shard_paths(folder, split, number)
    mend = "run litscale predict with callbacks.TokenWriter again, which writes what is missing or damaged"
    try:
        described: dict[str, Any] = json.loads(record.read_bytes())
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        if tokens.shape != (described["count"], facts.length):
            raise ValueError(f"it holds {list(tokens.shape)} tokens, not {[described['count'], facts.length]}")
        if verify and _hash(path.read_bytes(), described["labels"]) != described["sha256"]:
            raise ValueError("its checksum differs")
        if verify and tokens.size and not 0 <= tokens.min() <= tokens.max() < facts.vocab:
            raise ValueError(f"its tokens are {tokens.min()} to {tokens.max()}, the vocabulary has {facts.vocab}")
    except FileNotFoundError as error:
        raise ValueError(f"the token cache is incomplete, {error.filename} is missing: {mend}") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"the shard {path} is truncated or damaged ({error}): {mend}") from error
    if described["labels"] is None:
        return Shard(tokens, None)
    labels = np.array(described["labels"], dtype=np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < facts.num_classes:
        raise ValueError(
            f"the labels in {record} are {labels.min()} to {labels.max()}, out of range: the cache has "
            f"{facts.num_classes} classes; {mend}"
        )
    return Shard(tokens, labels)


def good_shards(folder: Path, facts: TokenFacts) -> set[tuple[str, int]]:
    """Split and number of the shards that are there and whole; reads all of them."""
    found = set()
    for split, count in facts.shards.items():
        for number in range(count):
            try:
                read_shard(folder, facts, split, number, verify=True)
            except ValueError:
                continue
            found.add((split, number))
    return found


def _hash(data: bytes, labels: list[int] | None) -> str:
    found = sha256(data)
    found.update(json.dumps(labels).encode())
    return found.hexdigest()
