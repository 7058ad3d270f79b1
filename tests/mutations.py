"""Damage, and the only two ways out of a reader: a value, or the documented error that names the file."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

# A MIDI file of 36 bytes with one note of 2^28 - 1 ticks, which are 2^20 sixteenths of 256 ticks.
_EVENTS = b"\x00\x90\x3c\x40" + b"\xff\xff\xff\x7f" + b"\x3c\x00" + b"\x00\xff\x2f\x00"
BOMB = b"MThd\0\0\0\6\0\0\0\1\4\0" + b"MTrk" + len(_EVENTS).to_bytes(4, "big") + _EVENTS


def outcome(read: Callable[[], T], name: str, error: type[ValueError] = ValueError) -> T | None:
    """What a reader gives, or None after an error of this type whose message has ``name`` once; others pass through."""
    try:
        return read()
    except error as found:
        message = str(found)
    assert message.count(name) == 1, message
    return None


def mutations(whole: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies: bits flipped, cut short, pieces doubled, zeroed or removed, and absurd numbers put in."""
    chance = random.Random(seed)
    absurd = [struct.pack("<q", 2**40), struct.pack(">q", 2**40), b"\xff" * 4, b"\xff" * 8, b"\x80", b"\x7f\xff", b"-1"]
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 1, 3, 10])):
            start = chance.randrange(len(data) + 1)
            end = min(len(data), start + chance.choice([1, 4, 16, 64, 1024]))
            kind = chance.randrange(7)
            if kind < 2 and start < len(data):
                data[start] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del data[start:]
            elif kind == 3:
                data[start:start] = data[start:end]
            elif kind == 4:
                data[start:end] = bytes(end - start)
            elif kind == 5:
                del data[start:end]
            else:
                piece = chance.choice(absurd)
                data[start : start + len(piece)] = piece
        yield bytes(data)
