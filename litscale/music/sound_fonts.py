"""Sound fonts (.sf2, .sf3), and root keys, which symusic does not heed.

A font's instruments may give a sample another root key, the one at which it sounds as recorded, than the sample's own
header does. symusic 0.5.9 reads the header alone: A4 of the piano of the font TimGM6mb sounds at 1656 Hz.
"""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np

SAMPLE, ROOT_KEY = 53, 58  # numbers of generators
HEADER = np.dtype(
    [("name", "S20"), ("places", "<u4", 5), ("root", "u1"), ("cents", "i1"), ("link", "<u2"), ("type", "<u2")]
)
GENERATOR = np.dtype([("kind", "<u2"), ("amount", "<u2")])
INSTRUMENT = np.dtype([("name", "S20"), ("zone", "<u2")])


def with_root_keys(font: bytes) -> bytes:
    """Return a sound font in which samples have the root keys that instruments give them.

    Programs that read instruments' root keys play it as before, and those that ignore them now play it right. Each
    sample that an instrument gives a root key gets a header with that key, a second one where several differ.

    Args:
        font: the file's bytes.

    Raises:
        ValueError: it is no sound font, or damaged.
    """
    try:
        return _with_root_keys(font)
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"damaged sound font ({error})") from error


def _with_root_keys(font: bytes) -> bytes:
    if font[:4] != b"RIFF" or font[8:12] != b"sfbk":
        raise ValueError("no sound font: it does not begin with RIFF and sfbk")
    # 1. the list of tables, and the tables that say which zone of an instrument plays which sample
    lists = _chunks(font[12:])
    number = next((i for i, (_, content) in enumerate(lists) if content[:4] == b"pdta"), None)
    if number is None:
        raise ValueError("damaged sound font (no list pdta)")
    tables = dict(_chunks(lists[number][1][4:]))
    headers = np.frombuffer(tables[b"shdr"], HEADER)
    generators = np.frombuffer(tables[b"igen"], GENERATOR).copy()
    zones = np.frombuffer(tables[b"ibag"], "<u2")[::2].tolist()
    instruments = np.frombuffer(tables[b"inst"], INSTRUMENT)["zone"].tolist()
    # 2. headers for the root keys of instruments, before the last one, which ends the table
    added: dict[tuple[int, int], int] = {}
    for first, last in pairwise(instruments):
        usual = None  # of the zone without a sample that holds for the whole instrument
        for zone in range(first, last):
            part = generators[zones[zone] : zones[zone + 1]]
            given = part["amount"][(part["kind"] == ROOT_KEY) & (part["amount"] <= 127)].tolist()
            root = given[-1] if given else usual
            plays = part["kind"] == SAMPLE
            if not plays.any():
                usual = root
            elif root is not None and headers["root"][sample := int(part["amount"][plays][0])] != root:
                part["amount"][plays] = added.setdefault((sample, root), len(headers) - 1 + len(added))
    more = headers[[sample for sample, _ in added]]
    more["root"] = [root for _, root in added]
    # 3. the font again
    tables[b"igen"] = generators.tobytes()
    tables[b"shdr"] = np.concatenate([headers[:-1], more, headers[-1:]]).tobytes()
    lists[number] = (b"LIST", b"pdta" + _joined(list(tables.items())))
    return _joined([(b"RIFF", b"sfbk" + _joined(lists))])


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Split bytes into the names and contents of the chunks that follow one another in them."""
    result, place = [], 0
    while place < len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        if place + 8 + size > len(content):
            raise ValueError(f"damaged sound font (cut short in {name!r})")
        result.append((name, content[place + 8 : place + 8 + size]))
        place += 8 + size + size % 2
    return result


def _joined(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Join chunks to the bytes that `_chunks` splits."""
    return b"".join(
        struct.pack("<4sI", name, len(content)) + content + bytes(len(content) % 2) for name, content in chunks
    )
