"""Root keys of instruments, in a font of two samples that is put together here."""

from __future__ import annotations

import struct

import pytest

from litscale.music.sound_fonts import with_root_keys


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def header(name: bytes, root: int) -> bytes:
    return struct.pack("<20s5IBbHH", name, 1, 2, 3, 4, 44100, root, -5, 0, 1)


def font(generators: list[list[tuple[int, int]]], instruments: list[int]) -> bytes:
    """Generators of each zone, and the first zone of each instrument and of the end."""
    starts = [sum(map(len, generators[:zone])) for zone in range(len(generators) + 1)]
    tables = [
        (b"phdr", b"presets"),  # an odd number of bytes
        (b"inst", b"".join(struct.pack("<20sH", b"x", zone) for zone in instruments)),
        (b"ibag", b"".join(struct.pack("<HH", start, 0) for start in starts)),
        (b"igen", b"".join(struct.pack("<HH", *pair) for zone in generators for pair in zone)),
        (b"shdr", header(b"first", 60) + header(b"second", 72) + header(b"EOS", 0)),
    ]
    lists = chunk(b"LIST", b"sdtasound!") + chunk(b"LIST", b"pdta" + b"".join(chunk(*table) for table in tables))
    return chunk(b"RIFF", b"sfbk" + lists)


ZONES = [
    [(58, 70)],  # the whole first instrument's
    [(43, 9), (53, 0)],
    [(58, 60), (53, 0)],  # what the header says
    [(58, 64), (53, 1)],
    [(58, 64), (53, 1)],
    [(58, 65535), (53, 1)],  # the second instrument's: none
    [(53, 0)],
]


def test_samples_get_the_root_keys_of_their_zones() -> None:
    expected = [list(zone) for zone in ZONES]
    expected[1][1] = (53, 2)
    expected[3][1] = expected[4][1] = (53, 3)
    plain = font(expected, [0, 5, 7])
    end = header(b"EOS", 0)
    assert plain.endswith(end)
    found = with_root_keys(font(ZONES, [0, 5, 7]))
    assert found.endswith(header(b"first", 70) + header(b"second", 64) + end)
    # the same but for the two headers and the sizes of the three chunks that hold them
    assert len(found) == len(plain) + 2 * 46
    assert found.index(b"shdr") == plain.index(b"shdr")
    for name in (b"RIFF", b"shdr"):
        place = found.index(name) + 4
        assert found[place : place + 4] == struct.pack("<I", struct.unpack_from("<I", plain, place)[0] + 92)
    assert found[found.index(b"pdta") : found.index(b"shdr")] == plain[plain.index(b"pdta") : plain.index(b"shdr")]
    assert with_root_keys(found) == found


def test_what_is_no_font() -> None:
    whole = font(ZONES, [0, 5, 7])
    for data, reason in (
        (b"RIFF....WAVE", "no sound font"),
        (whole[:-30], "cut short in b'RIFF'|cut short in b'LIST'"),
        (whole.replace(b"igen", b"kgen"), "damaged sound font"),
        (whole.replace(b"pdta", b"qdta"), "no list pdta"),
        (font([[(58, 1), (53, 7)]], [0, 1]), "damaged sound font"),
    ):
        with pytest.raises(ValueError, match=reason):
            with_root_keys(data)
