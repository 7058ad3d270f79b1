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

from litscale.storage.files import DamagedError, named_errors, read_json, write_atomically
from litscale.storage.npz import read_npy

INDEX = "index.json"


@dataclass(frozen=True)
class TokenMetadata:
    """What a cache says about itself.

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
        """Number of tokens of an image, L."""
        return sum(side**2 for side in self.patch_nums)

    def write(self, folder: Path) -> None:
        """Write the index; raises OSError if that fails."""
        write_atomically(folder / INDEX, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> TokenMetadata:
        """Read the index.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        path = folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(
                f"folder: {folder} is not a token cache: it has no {INDEX}; write one with litscale predict, a "
                "tokenizer and callbacks.TokenWriter"
            )
        try:
            with named_errors(path, "damaged"):
                return cls._checked(**read_json(path))
        except DamagedError as error:
            raise ValueError(f"{error}: write the cache again with litscale predict") from error

    @classmethod
    def _checked(cls, **entries: Any) -> TokenMetadata:
        """Return the metadata that an index holds; raises errors of any kind if its entries are wrong."""
        metadata = cls(**entries)
        numbers = [metadata.vocab, metadata.num_classes, *metadata.patch_nums, *metadata.shards.values()]
        names = [metadata.tokenizer, *metadata.shards]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError(f"{numbers} are not all whole numbers")
        if not all(isinstance(name, str) for name in names) or not isinstance(metadata.patch_nums, list):
            raise ValueError("its entries have the wrong types")
        return metadata


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
    """Return the paths of a shard's tokens and of its record."""
    stem = f"{split}_{number:05d}"
    return folder / f"{stem}.npy", folder / f"{stem}.json"


def write_shard(folder: Path, split: str, number: int, tokens: np.ndarray, labels: np.ndarray | None) -> None:
    """Write a shard, completely or not at all.

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


def read_shard(folder: Path, metadata: TokenMetadata, split: str, number: int, verify: bool = False) -> Shard:
    """Open a shard.

    Args:
        folder: of the cache.
        metadata: its index.
        split: of the shard.
        number: of the shard.
        verify: read all of it and compare checksums.

    Raises:
        ValueError: it is missing, truncated or damaged, or its labels or tokens are out of range.
    """
    path, record = shard_paths(folder, split, number)
    mend = "run litscale predict with callbacks.TokenWriter again, which writes what is missing or damaged"
    try:
        with named_errors(path, "damaged or truncated"):
            # 1. open both files
            described: dict[str, Any] = read_json(record)
            tokens = read_npy(path, mapped=True)
            labels = described["labels"]
            # 2. compare what the record says with what is there
            if tokens.shape != (described["count"], metadata.length) or not np.issubdtype(tokens.dtype, np.integer):
                raise ValueError(
                    f"it holds {tokens.dtype} {list(tokens.shape)}, not tokens of "
                    f"{[described['count'], metadata.length]}"
                )
            if labels is not None and (len(labels) != len(tokens) or not all(isinstance(one, int) for one in labels)):
                raise ValueError("its record has no label for each image")
            # 3. read all tokens
            if verify and _hash(path.read_bytes(), labels) != described["sha256"]:
                raise ValueError("its checksum differs")
            if verify and tokens.size and not 0 <= tokens.min() <= tokens.max() < metadata.vocab:
                raise ValueError(
                    f"its tokens are {tokens.min()} to {tokens.max()}, the vocabulary has {metadata.vocab}"
                )
            classes = None if labels is None else np.array(labels, np.int64)
    except FileNotFoundError as error:
        raise ValueError(f"the token cache is incomplete, {error.filename} is missing: {mend}") from error
    except DamagedError as error:
        raise ValueError(f"the shard {error}: {mend}") from error
    # 4. compare the labels with the number of classes
    if classes is not None and len(classes) and not 0 <= classes.min() <= classes.max() < metadata.num_classes:
        raise ValueError(
            f"the labels in {record} are {classes.min()} to {classes.max()}, out of range: the cache has "
            f"{metadata.num_classes} classes; {mend}"
        )
    return Shard(tokens, classes)


def good_shards(folder: Path, metadata: TokenMetadata) -> set[tuple[str, int]]:
    """Read all shards, and return split and number of those that are complete and undamaged."""
    good = set()
    for split, count in metadata.shards.items():
        for number in range(count):
            try:
                read_shard(folder, metadata, split, number, verify=True)
            except ValueError:
                continue
            good.add((split, number))
    return good


def _hash(data: bytes, labels: list[int] | None) -> str:
    digest = sha256(data)
    digest.update(json.dumps(labels).encode())
    return digest.hexdigest()
