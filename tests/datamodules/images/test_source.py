"""Data sets of images of a user's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from datamodules import ImageDataModule, ImageSource
from datamodules.images.decoding import Crop
from datamodules.images.source import ImagesInMemory

SHADES = '''
import numpy as np

from datamodules import ImageSource
from datamodules.images.source import ImagesInMemory


class Shades(ImageSource):
    """Grey squares; the shade says the number."""

    channels = 1

    def __init__(self, count: int = 8) -> None:
        self.count = count

    def open(self, split, crop):
        first = {"train": 0, "val": 100, "test": 200}[split]
        shades = np.arange(first, first + self.count, dtype=np.uint8)
        canvases = np.ones((self.count, 1, crop.size, crop.size), np.uint8) * shades[:, None, None, None]
        return ImagesInMemory(canvases, np.arange(self.count) % 2)
'''


def shades(loader: torch.utils.data.DataLoader) -> list[int]:
    return torch.cat([batch["canvas"][:, 0, 0, 0] for batch in loader]).tolist()


def test_a_source_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_shades.py").write_text(SHADES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    parser = ArgumentParser()
    parser.add_class_arguments(ImageDataModule, "data")
    text = """
data:
  source: {class_path: own_shades.Shades, init_args: {count: 6}}
  size: 4
  num_classes: 2
  batch_size: 3
"""
    data = parser.instantiate_classes(parser.parse_string(text)).data
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    assert data.canvas_shape == (1, 4, 4)
    assert sorted(shades(data.train_dataloader())) == [0, 1, 2, 3, 4, 5]
    assert shades(data.val_dataloader()) == [100, 101, 102, 103, 104, 105]
    assert shades(data.test_dataloader()) == [200, 201, 202, 203, 204, 205]
    assert next(iter(data.val_dataloader()))["label"].tolist() == [0, 1, 0]
    assert data.class_names == ["0", "1"]


class Own(ImageSource):
    """Two images with labels, or without."""

    def __init__(self, labels: list[int] | None) -> None:
        self.labels = labels

    def class_names(self) -> list[str]:
        return ["cat", "dog"]

    def open(self, split: str, crop: Crop) -> ImagesInMemory:
        labels = None if self.labels is None else np.array(self.labels)
        return ImagesInMemory(np.zeros((2, 3, crop.size, crop.size), np.uint8), labels)


def test_labels_and_classes_agree() -> None:
    assert ImageDataModule(Own([0, 1]), num_classes=2).class_names == ["cat", "dog"]
    assert ImageDataModule(Own([0, 1])).images("val").labels is None
    with pytest.raises(ValueError, match="num_classes is 2, but Own has no labels: set num_classes to 0"):
        ImageDataModule(Own(None), num_classes=2).images("val")
    with pytest.raises(ValueError, match="num_classes is 3, but Own has 2 classes: set num_classes to 2"):
        ImageDataModule(Own([0, 1]), num_classes=3).images("val")
    with pytest.raises(ValueError, match=r"the labels of the val split in Own are 0 to 2, out of range.* 0\.\.1"):
        ImageDataModule(Own([0, 2]), num_classes=2).images("val")
