from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_runs import everything, ready
from idx_files import picture, write_idx
from jsonargparse import ArgumentParser

from datamodules import DigitsDataModule, FashionMNISTDataModule, ImageRequest, TokenDataModule
from datamodules.base import class_names_of


def clothes(folder: Path, **options: Any) -> FashionMNISTDataModule:
    return ready(FashionMNISTDataModule(str(folder), **options), "fit", "test")


def test_batches_are_padded_pictures_and_their_classes(tmp_path: Path) -> None:
    dm = clothes(write_idx(tmp_path), batch_size=10)
    assert (dm.canvas_shape, dm.alphabet, dm.num_classes) == ((1, 32, 32), 256, 10)
    canvases, labels = everything(dm.test_dataloader())
    assert (canvases.dtype, canvases.shape, labels.dtype) == (torch.uint8, (20, 1, 32, 32), torch.int64)
    for number, (canvas, label) in enumerate(zip(canvases[:, 0].numpy(), labels.tolist(), strict=True)):
        assert np.array_equal(canvas, np.pad(picture(number, label), 2))
    sizes = [len(everything(loader)[1]) for loader in (dm.train_dataloader(), dm.val_dataloader())]
    assert sizes == [110, 10]


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3)])
def test_sizes_and_channels(tmp_path: Path, size: int, channels: int) -> None:
    dm = clothes(write_idx(tmp_path, packed=False), size=size, channels=channels)
    canvases, _ = everything(dm.val_dataloader())
    assert dm.canvas_shape == (channels, size, size) == canvases.shape[1:]
    assert all(canvas[0].equal(channel) for canvas in canvases for channel in canvas)


def test_class_names(tmp_path: Path) -> None:
    folder = write_idx(tmp_path)
    assert clothes(folder).class_names[:4] == ["T-shirt/top", "trouser", "pullover", "dress"]
    assert clothes(folder).class_names[-1] == "ankle boot"
    assert clothes(folder, class_names=list("0123456789")).class_names == list("0123456789")
    without = clothes(folder, labels=False)
    assert (without.num_classes, without.class_names) == (0, [])
    assert set(next(iter(without.train_dataloader()))) == {"canvas"}
    with pytest.raises(ValueError, match=r"train split in .* are 0 to 9, out of range: class_names gives 2 classes"):
        clothes(folder, class_names=["cat", "dog"])


def test_names_are_known_before_anything_is_read(tmp_path: Path) -> None:
    dm = FashionMNISTDataModule("none", class_names=["a", "b"])
    assert class_names_of(dm) == ["a", "b"]
    assert class_names_of(FashionMNISTDataModule("none", labels=False)) == []
    assert class_names_of(DigitsDataModule()) == class_names_of(None) == []
    assert class_names_of(TokenDataModule(str(tmp_path), source=dm)) == ["a", "b"]
    assert class_names_of(TokenDataModule(str(tmp_path))) == []


def test_requests_need_no_data() -> None:
    dm = FashionMNISTDataModule("none", predict=ImageRequest(num_samples=12, seed=1), batch_size=5)
    dm.prepare_data()
    dm.setup("predict")
    assert torch.cat([batch["label"] for batch in dm.predict_dataloader()]).tolist() == [*range(10), 0, 1]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder: there is no folder .*none; get the data with torchvision"):
        clothes(tmp_path / "none")


def test_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_MNIST", str(write_idx(tmp_path / "a", {"train": 24, "t10k": 3})))
    dm = FashionMNISTDataModule()
    dm.setup("test")
    assert len(everything(dm.test_dataloader())[1]) == 3
    other = clothes(write_idx(tmp_path / "b"), batch_size=2)  # an option counts more
    assert len(everything(other.test_dataloader())[1]) == 20
    monkeypatch.delenv("FASHION_MNIST")
    assert str(FashionMNISTDataModule().source) == "/usr/share/datasets/fashion-mnist"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 28}, "size must be one of 16, 32, not 28"),
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"class_names": []}, "class_names is empty"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"predict": ImageRequest(labels=[10])}, r"predict\.labels has 10, but must be in 0\.\.9"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FashionMNISTDataModule("none", **options)


def test_options_of_the_command_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FashionMNISTDataModule, "data")
    arguments = [
        "--data.folder=x",
        "--data.size=16",
        "--data.class_names=[a,b]",
        "--data.val_images=3",
        "--data.flip=true",
    ]
    dm = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert (dm.canvas_shape, dm.class_names, dm.most["val"]) == ((1, 16, 16), ["a", "b"], 3)
