"""MIDI files put together byte by byte, to be right or wrong in any place."""

from __future__ import annotations

from pathlib import Path

STEP = 120  # ticks of a sixteenth at 480 a quarter note
END = b"\x00\xff\x2f\x00"


def header(tracks: int = 1, form: int = 0, division: int = 480, more: bytes = b"") -> bytes:
    """A header chunk; ``more`` makes it longer than usual."""
    numbers = b"".join(number.to_bytes(2) for number in (form, tracks, division))
    return b"MThd" + (6 + len(more)).to_bytes(4) + numbers + more


def number(value: int) -> bytes:
    """A number of variable length."""
    result = bytes([value & 0x7F])
    while value := value >> 7:
        result = bytes([value & 0x7F | 0x80]) + result
    return result


def track(*events: tuple[int, bytes], end: bytes = END) -> bytes:
    """A track chunk of (absolute step, bytes); bytes without a status go on with the one before."""
    content, now = b"", 0
    for step, message in events:
        content += number((step - now) * STEP) + message
        now = step
    return b"MTrk" + len(content + end).to_bytes(4) + content + end


def on(pitch: int, velocity: int = 64, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def pedal(value: int, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, 64, value])


def meter(numerator: int, denominator: int) -> bytes:
    """A time signature; the denominator is a power of two."""
    return bytes([0xFF, 0x58, 4, numerator, denominator.bit_length() - 1, 24, 8])


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3)


def write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path
