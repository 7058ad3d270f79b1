import zlib
from typing import Any

import numpy as np
import pytest
import torch
from data_runs import everything, ready
from jsonargparse import ArgumentParser
from PIL import Image
from sklearn.datasets import load_digits

from datamodules import DigitsDataModule, ImageRequest
from datamodules.images.digits import random_shift


def digits(**options: Any) -> DigitsDataModule:
    return ready(DigitsDataModule(**options), "fit", "test")


def test_scans_are_shared_out_once_and_by_class() -> None:
    dm = digits(batch_size=1)
    scans = load_digits()
    parts = {}
    for name, loader in (
        ("train", dm.train_dataloader()),
        ("val", dm.val_dataloader()),
        ("test", dm.test_dataloader()),
    ):
        parts[name] = everything(loader)
    assert [len(labels) for _, labels in parts.values()] == [1259, 269, 269]
    for _, labels in parts.values():
        counts = labels.bincount(minlength=10)
        assert (counts / len(labels) - torch.from_numpy(scans.target).bincount() / 1797).abs().max() < 0.01
    found = sorted(
        (canvas.numpy().tobytes(), int(label))
        for canvases, labels in parts.values()
        for canvas, label in zip(canvases, labels, strict=True)
    )
    exact = np.array([int(value * 255 / 16 + 0.5) for value in scans.images.ravel()], np.uint8).reshape(1797, 64)
    assert found == sorted((row.tobytes(), int(label)) for row, label in zip(exact, scans.target, strict=True))


def test_the_split_is_always_the_same() -> None:
    canvases, labels = everything(digits().val_dataloader())
    assert labels[:12].tolist() == [9, 9, 5, 0, 2, 2, 8, 0, 6, 0, 9, 5]
    assert zlib.crc32(canvases.numpy().tobytes()) == 4164806104
    assert canvases.equal(everything(digits(seed=5, batch_size=7).val_dataloader())[0])


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_and_channels(size: int, channels: int) -> None:
    small, labels = everything(digits().test_dataloader())
    dm = digits(size=size, channels=channels)
    large, same_labels = everything(dm.test_dataloader())
    assert dm.canvas_shape == (channels, size, size)
    assert (large.dtype, large.shape) == (torch.uint8, (len(small), channels, size, size))
    assert labels.equal(same_labels)
    for k in (0, 100):
        expected = np.asarray(Image.fromarray(small[k, 0].numpy()).resize((size, size), Image.BICUBIC))
        assert all(np.array_equal(channel, expected) for channel in large[k])


def test_what_a_module_offers_before_setup() -> None:
    dm = DigitsDataModule()
    assert (dm.canvas_shape, dm.alphabet, dm.num_classes) == ((1, 8, 8), 256, 10)
    assert dm.class_names == list("0123456789")
    assert (dm.renderer.channels, dm.renderer.size) == (1, 8)
    without = digits(labels=False)
    assert (without.num_classes, without.class_names) == (0, [])
    assert set(next(iter(without.train_dataloader()))) == {"canvas"}


def test_epochs_are_shuffled_and_repeatable() -> None:
    def epoch(number: int, **options: Any) -> torch.Tensor:
        loader = digits(**options).train_dataloader()
        loader.sampler.set_epoch(number)
        return everything(loader)[0]

    assert epoch(0).shape == (19 * 64, 1, 8, 8)
    assert epoch(0).equal(epoch(0))
    assert not epoch(0).equal(epoch(1))
    assert not epoch(0).equal(epoch(0, seed=1))
    assert epoch(1, shift=1).equal(epoch(1, shift=1))


def test_shifts_move_training_images_only() -> None:
    plain, shifted = digits(), digits(shift=2)
    assert everything(plain.val_dataloader())[0].equal(everything(shifted.val_dataloader())[0])
    moves = set()
    for a, b in zip(everything(plain.train_dataloader())[0], everything(shifted.train_dataloader())[0], strict=True):
        padded = torch.nn.functional.pad(a, (2, 2, 2, 2))
        options = [(y, x) for y in range(5) for x in range(5) if padded[:, y : y + 8, x : x + 8].equal(b)]
        assert options
        moves.add(options[0])
    assert len(moves) == 25


def test_a_shift_brings_in_black() -> None:
    canvas = np.full((3, 4, 4), 9, np.uint8)
    for seed in range(20):
        moved = random_shift(canvas, np.random.default_rng(seed), 3)
        assert moved.shape == canvas.shape
        assert set(np.unique(moved)) <= {0, 9}


def test_requests_need_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DigitsDataModule, "images", None)
    dm = DigitsDataModule(predict=ImageRequest(num_samples=12, seed=1), batch_size=5)
    dm.prepare_data()
    dm.setup("predict")
    batches = list(dm.predict_dataloader())
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [*range(10), 0, 1]
    assert [batch["seed"] for batch in batches] == [1] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 9}, "size must be one of 8, 16, 32, not 9"),
        ({"channels": 2}, "channels must be 1 or 3, not 2"),
        ({"shift": 8}, r"shift must be in 0\.\.7, not 8"),
        ({"shift": -1}, r"shift must be in 0\.\.7"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"predict": ImageRequest(labels=[10])}, r"predict\.labels has 10, but must be in 0\.\.9"),
        ({"predict": ImageRequest(labels=[1]), "labels": False}, r"predict\.labels is given, but the data has no"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**options)


def test_batches_must_fit() -> None:
    dm = digits(batch_size=2000)
    with pytest.raises(ValueError, match=r"an epoch has 1259 images, 1259 for each device, .* \(now 2000\)"):
        dm.train_dataloader()


def test_options_of_the_command_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DigitsDataModule, "data")
    config = parser.parse_args(
        [
            "--data.size=16",
            "--data.predict.labels=[1,2]",
            "--data.predict.region=[0,0,4,4]",
            "--data.predict.inpaint=x.png",
        ]
    )
    dm = parser.instantiate_classes(config).data
    assert dm.request == ImageRequest(labels=[1, 2], inpaint="x.png", region=(0, 0, 4, 4))
