"""Small tar shards in the layout of webdataset."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], **options: object) -> Path:
    """A tar file of these names and contents; the options are those of tarfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, **{"mode": "w", **options}) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, split: str, images: Sequence[tuple[bytes, int]], shards: int = 2) -> list[Path]:
    """Shards ``SPLIT-000000.tar``, ..., of encoded images and their classes."""
    each = -(-len(images) // shards)
    paths = []
    for number in range(shards):
        members: list[tuple[str, bytes]] = []
        for key, (data, label) in enumerate(images[number * each : (number + 1) * each]):
            members += [(f"{key:04}.jpg", data), (f"{key:04}.cls", str(label).encode())]
        paths.append(write_tar(folder / f"{split}-{number:06}.tar", members))
    return paths
