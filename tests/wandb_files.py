"""Reads W&B's offline files back."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7
SECONDS = 30


def offline_history(folder: Path) -> list[dict[str, Any]]:
    """The logged rows of the one offline run in a folder."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return history(path)


def history(path: Path) -> list[dict[str, Any]]:
    """The rows that a file of W&B holds."""
    deadline = time.monotonic() + SECONDS
    # W&B's service writes the file's end some time after `finish` has returned, and on a busy machine not always: then
    # the rows that are there must do.
    found = records(path.read_bytes())
    while not any(record.HasField("exit") for record in found) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = records(path.read_bytes())
    histories = [record.history.item for record in found if record.HasField("history")]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in histories]


def records(data: bytes) -> list[Record]:
    """The file is a log of 32 KiB blocks; a record is one piece or several, each with a header of 7 bytes."""
    position, piece, found = HEADER, b"", []
    while position + HEADER <= len(data):
        if (left := BLOCK - position % BLOCK) < HEADER:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + HEADER])
        if position + HEADER + size > len(data):
            break
        piece += data[position + HEADER : position + HEADER + size]
        position += HEADER + size
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(piece))
            piece = b""
    return found
