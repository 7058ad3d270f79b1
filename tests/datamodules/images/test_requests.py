from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import encoded, photo, published
from lightning.pytorch import LightningDataModule

from datamodules import DigitsDataModule, ImageRequest, TokenDataModule
from datamodules.images.renderer import ImageRenderer
from datamodules.images.requests import image_requests
from datamodules.requests import RequestRecord, Requests

RGB = ImageRenderer(3, 16)


def requests(num_classes: int = 10, batch_size: int = 4, **options: Any) -> Requests:
    return image_requests(ImageRequest(**options), RGB, num_classes, batch_size)


def test_classes_come_in_turn() -> None:
    def labels(**options: Any) -> list[int]:
        found = requests(num_samples=7, **options)
        return torch.cat([found[k]["label"] for k in range(len(found))]).tolist()

    assert labels(num_classes=3) == [0, 1, 2, 0, 1, 2, 0]
    assert labels(labels=[8, 1]) == [8, 1, 8, 1, 8, 1, 8]
    for found in (requests(num_classes=0), requests(unconditional=True)):
        assert "label" not in found[0]


def test_fifty_thousand_have_equally_many_of_each_class() -> None:
    found = requests(num_classes=1000, batch_size=512, num_samples=50_000, seed=3)
    assert len(found) == 98
    batches = [found[k] for k in range(98)]
    assert torch.cat([batch["label"] for batch in batches]).bincount().tolist() == [50] * 1000
    assert torch.cat([batch["index"] for batch in batches]).equal(torch.arange(50_000))
    assert [batch["seed"] for batch in batches] == [3] * 98
    assert len(batches[-1]["canvas"]) == 50_000 - 97 * 512


def test_nothing_is_known_unless_given() -> None:
    batch = requests()[0]
    assert (batch["canvas"].dtype, batch["canvas"].shape) == (torch.uint8, (4, 3, 16, 16))
    assert (batch["known"].dtype, batch["known"].shape) == (torch.bool, (4, 3, 16, 16))
    assert not batch["known"].any()
    assert not batch["canvas"].any()


def test_a_region_is_unknown_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(photo(40, 33)))
    batch = requests(inpaint=str(path), region=(2, 4, 10, 16))[0]
    hole = torch.zeros(3, 16, 16, dtype=torch.bool)
    hole[:, 2:10, 4:16] = True
    for canvas, known in zip(batch["canvas"], batch["known"], strict=True):
        assert known.equal(~hole)
        assert np.array_equal(canvas, np.where(hole, 0, published(photo(40, 33), 16)))


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "samples"),
        ({"labels": [3, 1], "seed": 2}, "labels_3_1_seed_2"),
        ({"unconditional": True}, "unconditional"),
        ({"inpaint": "a b/my photo.png", "region": (2, 4, 10, 16)}, "inpaint_my_photo_2_4_10_16"),
        ({"labels": list(range(100))}, "labels_" + "_".join(map(str, range(100)))[:73]),
    ],
)
def test_titles_for_folders(options: dict[str, Any], title: str) -> None:
    assert ImageRequest(**options).title == title


def test_requests_are_described(tmp_path: Path) -> None:
    dm = DigitsDataModule(batch_size=5, predict=ImageRequest(num_samples=7, labels=[3, 1]))
    dm.setup("predict")
    asked = {"num_samples": 7, "labels": [3, 1], "unconditional": False, "inpaint": None, "region": None, "seed": 0}
    assert dm.described_request() == RequestRecord("labels_3_1", asked | {"batch_size": 5})
    tokens = TokenDataModule(str(tmp_path), source=dm)
    assert tokens.described_request() == dm.described_request()
    with pytest.raises(ValueError, match=r"data\.source, a LightningDataModule, has no described_request"):
        TokenDataModule(str(tmp_path), source=LightningDataModule()).described_request()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, r"predict\.num_samples must be at least 1, not 0"),
        ({"labels": []}, r"predict\.labels is empty"),
        ({"labels": [1], "unconditional": True}, r"predict\.labels and predict\.unconditional are both given"),
        ({"inpaint": "a.png"}, r"predict\.region, the part to regenerate, together"),
        ({"region": (0, 0, 4, 4)}, r"predict\.inpaint, the image to change"),
        ({"labels": [1, 10]}, r"predict\.labels has 10, but must be in 0\.\.9"),
        ({"labels": [-1]}, r"predict\.labels has -1"),
        ({"labels": [1], "num_classes": 0}, r"predict\.labels is given, but the data has no classes"),
        ({"inpaint": "IMAGE", "region": (0, 0, 17, 4)}, r"predict\.region is 0, 0, 17, 4, but .* 16 pixels"),
        ({"inpaint": "IMAGE", "region": (4, 0, 4, 4)}, r"0 <= top < bottom <= 16"),
        ({"inpaint": "IMAGE", "region": (0, -1, 4, 4)}, "likewise left < right"),
        (
            {"inpaint": "TEXT", "region": (0, 0, 4, 4)},
            r"predict\.inpaint: .*text\.png: cannot be read .*; give an image",
        ),
    ],
)
def test_impossible_requests(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(photo(20, 20)))
    (tmp_path / "text.png").write_text("text")
    files = {"IMAGE": str(tmp_path / "photo.png"), "TEXT": str(tmp_path / "text.png")}
    filled = {name: files.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        requests(**filled)


def test_a_missing_image() -> None:
    with pytest.raises(FileNotFoundError, match=r"predict\.inpaint: there is no file nowhere\.png"):
        requests(inpaint="nowhere.png", region=(0, 0, 4, 4))
