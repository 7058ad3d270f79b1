"""Shards of parquet: what they declare, and their columns, a row group at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from litscale.storage.archives import most_bytes
from litscale.storage.files import named_errors

KIND = "cannot be read as a parquet shard"


@dataclass(frozen=True)
class ShardHeader:
    """What a shard declares.

    Attributes:
        columns: their names.
        metadata: what its writer says of it.
        rows: number of rows of each row group.
        size: of all of them, in bytes, once they are read.
    """

    columns: list[str]
    metadata: dict[bytes, bytes]
    rows: list[int]
    size: int


def shard_header(path: Path) -> ShardHeader:
    """Read what a shard declares.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or declares more rows than it has bytes, or more than 32 times its bytes (and 64
            MiB); the message names it.
    """
    with named_errors(path, KIND), pq.ParquetFile(path) as file:
        there = path.stat().st_size
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        rows, size = [group.num_rows for group in groups], sum(group.total_byte_size for group in groups)
        if min(rows, default=0) < 0 or sum(rows) > there or not 0 <= size <= most_bytes(there):
            raise ValueError(f"it declares {sum(rows)} rows and {size} bytes in a file of {there}")
        return ShardHeader(list(file.schema_arrow.names), dict(file.schema_arrow.metadata or {}), rows, size)


def read_column(path: Path, name: str, group: int | None = None) -> pa.ChunkedArray:
    """Read a column, of one row group or of all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; the message names it.
    """
    # Without threads of its own: this runs in worker processes. Opened again, because those are forks.
    with named_errors(path, KIND), pq.ParquetFile(path, memory_map=True) as file:
        groups = range(file.metadata.num_row_groups) if group is None else [group]
        column = file.read_row_groups(list(groups), [name], use_threads=False)[name]
        expected = sum(file.metadata.row_group(number).num_rows for number in groups)
        if len(column) != expected:
            raise ValueError(f"{name} has {len(column)} of {expected} rows")
        column.validate(full=True)
        return column
