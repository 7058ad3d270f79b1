"""Progress of long work: a bar in a terminal, and lines of plain text elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 30.0  # between two lines


def progress(
    items: Iterable[Item],
    label: str,
    total: int,
    *,
    leave: bool = True,
    name_of: Callable[[Item], str] = lambda item: "",
) -> Iterator[Item]:
    """Go through items and show on standard error how many are done.

    Args:
        items: what the work is done for, one after the other.
        label: words that say what is done, such as ``Reading chorales``.
        total: number of items.
        leave: whether the end stays visible: the bar, or a last line; without it, short work shows no line at all.
        name_of: names the item that is worked on.

    Yields:
        The items.
    """
    if sys.stderr.isatty():
        with tqdm(items, desc=label, total=total, leave=leave) as bar:
            for item in bar:
                bar.set_postfix_str(name_of(item))
                yield item
        return
    last, shown = time.monotonic(), False
    for done, item in enumerate(items):
        if done and time.monotonic() - last >= SECONDS:
            print(f"{label}: {done} of {total}, {name_of(item)}".removesuffix(", "), file=sys.stderr, flush=True)
            last, shown = time.monotonic(), True
        yield item
    if leave or shown:
        print(f"{label}: {total} of {total}", file=sys.stderr, flush=True)
