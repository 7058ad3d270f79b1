"""Small data sets of images, in all forms, and the published pipeline restated."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WNIDS = ["n01440764", "n01443537", "n01484850"]  # sorted: the classes
CLASS_MAP = "n01484850 1 white_shark\nn01440764 2 tench\nn01443537 3 goldfish\n"  # the release's own order
NUMBERS = {"n01484850": 1, "n01440764": 2, "n01443537": 3}


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with coarse and fine structure."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((width, height))
    noise = random.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def published(image: Image.Image, size: int) -> np.ndarray:
    """ADM's crop in other words, uint8 [3, size, size]."""
    width, height = image.size
    while width >= 2 * size and height >= 2 * size:
        width, height = width // 2, height // 2
        image = image.resize((width, height), Image.BOX)
    width, height = np.rint(np.array([width, height]) * (size / min(width, height))).astype(int).tolist()
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.BICUBIC).crop((left, top, left + size, top + size))
    return np.stack([np.asarray(channel) for channel in image.split()])


def write_folder(root: Path, split: str, each: int, side: int = 24, seed: int = 0) -> list[tuple[Path, int]]:
    """JPEG files of odd sizes in class folders; their paths and classes, in order."""
    random = np.random.default_rng(seed)
    result = []
    for label, wnid in enumerate(WNIDS):
        folder = root / split / wnid
        folder.mkdir(parents=True)
        for number in range(each):
            width, height = random.integers(side, 3 * side, 2).tolist()
            path = folder / f"{wnid}_{number:04}.JPEG"
            path.write_bytes(encoded(photo(width, height, int(random.integers(2**31))), "JPEG"))
            result.append((path, label))
    return result


def batch(count: int, side: int, seed: int) -> dict[str, object]:
    """A batch as the down-sampled release has it."""
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (count, 3 * side * side), dtype=np.uint8)
    return {"data": data, "labels": (random.integers(0, 3, count) + 1).tolist(), "mean": data.mean(0)}


def write_arrays(root: Path, kind: str, counts: Sequence[int], side: int = 8) -> dict[str, dict[str, object]]:
    """Batches ``train_data_batch_1``, ... and ``val_data``: ``npz``, ``compressed`` or ``pickle``."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "map_clsloc.txt").write_text(CLASS_MAP)
    names = [f"train_data_batch_{number}" for number in range(1, len(counts))] + ["val_data"]
    batches = {name: batch(count, side, seed) for seed, (name, count) in enumerate(zip(names, counts, strict=True))}
    for name, content in batches.items():
        if kind == "pickle":
            (root / name).write_bytes(pickle.dumps(content, protocol=4))
        else:
            save = np.savez if kind == "npz" else np.savez_compressed
            save(root / f"{name}.npz", **content)
    return batches


def write_parquet(
    root: Path, split: str, images: Sequence[tuple[bytes | None, int]], shards: int = 2, rows: int = 4
) -> None:
    """Shards as on the Hugging Face hub."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    each = -(-len(images) // shards)
    for number in range(shards):
        part = images[number * each : (number + 1) * each]
        table = pa.table(
            {
                "image": [{"bytes": data, "path": f"{k}.jpg"} for k, (data, _) in enumerate(part)],
                "label": [label for _, label in part],
            }
        )
        path = root / "data" / f"{split}-{number:05}-of-{shards:05}.parquet"
        pq.write_table(table, path, row_group_size=rows)
