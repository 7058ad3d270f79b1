"""Which files are the shards of a split: found in a folder, or given as patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from datamodules.messages import abridged

SPLIT_NAMES = {"train": ("train",), "val": ("validation", "valid", "val")}
SUFFIXES = {"parquet": (".parquet",), "tar": (".tar", ".tar.gz", ".tgz")}  # compressed tars are found, and refused
MOST_SHARDS = 10**6  # that a pattern may stand for
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def shard_files(folder: Path, split: str, form: str, patterns: Mapping[str, str] | None = None) -> list[Path]:
    """Return the shards of a split, in order; empty if there are none and no patterns were given.

    Args:
        folder: where they are, directly or in ``data``: ``train-*``, ``train``, ``NAME-train-*`` or ``train/*``.
        split: ``train`` or ``val``.
        form: ``tar`` or ``parquet``.
        patterns: split -> name of its shards, from ``folder`` on, with ``{000..146}``, ``{a,b}`` and ``*``.

    Raises:
        FileNotFoundError: a pattern is missing, or names a file that is not there; a shard is a folder, or a link that
            leads nowhere.
        ValueError: a pattern cannot be read.
    """
    files = _found(folder, split, form) if patterns is None else _matching(folder, split, patterns)
    if strange := [str(path) for path in files if not path.is_file()]:
        raise FileNotFoundError(
            f"{abridged(strange)}: not a file, but named like a shard of {split}; remove or repair it"
        )
    return files


def _found(folder: Path, split: str, form: str) -> list[Path]:
    """Return the files whose names are those of a split's shards."""
    for root in (folder / "data", folder):
        for name in SPLIT_NAMES[split]:
            for suffix in SUFFIXES[form]:
                for style in (f"{name}-*{suffix}", f"{name}{suffix}", f"*-{name}-*{suffix}", f"{name}/*{suffix}"):
                    if files := [path for path in sorted(root.glob(style)) if not path.name.startswith(".")]:
                        return files
    return []


def form_of(patterns: Mapping[str, str]) -> str:
    """Return ``tar`` or ``parquet``, by the endings of patterns.

    Raises:
        ValueError: they have other endings, or there are other splits than train and val.
    """
    if not patterns or set(patterns) - set(SPLIT_NAMES):
        raise ValueError(f"shards: give patterns for train and val, not for {abridged(sorted(patterns)) or 'nothing'}")
    forms = {form for form, suffixes in SUFFIXES.items() for pattern in patterns.values() if pattern.endswith(suffixes)}
    unknown = [pattern for pattern in patterns.values() if not pattern.endswith(sum(SUFFIXES.values(), ()))]
    if unknown or len(forms) > 1:
        raise ValueError(f"shards: {abridged(unknown or list(patterns.values()))}: all must be *.tar, or all *.parquet")
    return forms.pop()


def expanded(pattern: str) -> list[str]:
    """Return all names that a pattern with braces stands for, as shells and webdataset expand it.

    Args:
        pattern: with any number of ``{000..146}`` and ``{a,b}``, none inside of another one.

    Raises:
        ValueError: it is damaged, or stands for more than `MOST_SHARDS`.
    """
    names = [""]
    end = 0
    for braces in _BRACES.finditer(pattern):
        head, content, end = pattern[end : braces.start()], braces[1], braces.end()
        if numbers := _NUMBERS.fullmatch(content):
            first, last = int(numbers[1]), int(numbers[2])
            count, width = last + 1 - first, len(numbers[1])
            choices: Iterator[str] = (f"{number:0{width}}" for number in range(first, last + 1))
        else:
            choices, count = iter(content.split(",")), content.count(",") + 1
        if count < 1 or len(names) * count > MOST_SHARDS:
            raise ValueError(f"shards: {pattern} stands for {max(count, 0) * len(names)} files; write {{000..146}}")
        tails = list(choices)
        names = [name + head + tail for name in names for tail in tails]
    names = [name + pattern[end:] for name in names]
    if "{" in names[0] or "}" in names[0]:
        raise ValueError(f"shards: {pattern}: its braces do not match; write {{000..146}} or {{a,b}}")
    return names


def _matching(folder: Path, split: str, patterns: Mapping[str, str]) -> list[Path]:
    """Return the files that a split's pattern names."""
    if split not in patterns:
        raise FileNotFoundError(f"shards: there is no pattern for {split}, only for {abridged(sorted(patterns))}")
    pattern = patterns[split]
    if "://" in pattern or pattern.startswith("pipe:"):
        raise ValueError(f"shards.{split}: {pattern}: shards are files; copy them to a disk, or mount where they are")
    files, missing = [], []
    for name in expanded(pattern):
        path = folder / Path(name).expanduser()
        if set("*?[") & set(name):
            found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        else:
            found = [path] if path.exists() else []
        files += found
        missing += [] if found else [str(path)]
    if missing:
        raise FileNotFoundError(f"shards.{split}: there is no {abridged(missing)}")
    if twice := len(files) - len(set(files)):
        raise ValueError(f"shards.{split}: {pattern} names {twice} files twice")
    return files
