import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_recorder import Recorder, fit, flat, trainer
from data_runs import everything, ready
from image_files import WNIDS, encoded, photo, published, write_arrays, write_folder, write_parquet
from jsonargparse import ArgumentParser
from PIL import Image
from rank_runs import two_ranks
from tar_files import write_shards

from datamodules import ImageNetDataModule, ImageRequest

SIZE = 8
Make = Callable[..., ImageNetDataModule]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Image files: 30 to train, 12 to validate."""
    root = tmp_path / "files"
    write_folder(root, "train", 10, side=SIZE, seed=0)
    write_folder(root, "val", 4, side=SIZE, seed=1)
    return root


@pytest.fixture
def module(folder: Path, tmp_path: Path) -> Make:
    """Makes a data module over `folder`, unless told otherwise."""

    def make(root: Path = folder, **options: Any) -> ImageNetDataModule:
        defaults = {"size": SIZE, "num_classes": 3, "batch_size": 4, "cache_dir": str(tmp_path / "cache")}
        return ImageNetDataModule(str(root), **{**defaults, **options})

    return make


def pairs(canvases: torch.Tensor, labels: torch.Tensor) -> list[tuple[bytes, int]]:
    return [(canvas.numpy().tobytes(), int(label)) for canvas, label in zip(canvases, labels, strict=True)]


@pytest.mark.parametrize("form", ["folder", "parquet", "npz", "pickle", "tar"])
def test_all_forms_give_the_same_tensors(tmp_path: Path, module: Make, form: str) -> None:
    random = np.random.default_rng(0)
    labels = {"train": random.integers(0, 3, 10).tolist(), "val": random.integers(0, 3, 6).tolist()}
    images = {
        split: [photo(SIZE, SIZE, k + 50 * (split == "val")) for k in range(len(found))]
        for split, found in labels.items()
    }
    root = tmp_path / form
    if form in ("npz", "pickle"):
        write_arrays(root, form, [1, 1], SIZE)
        number = {2: 1, 0: 2, 1: 3}  # sorted class -> the release's own
        for name, split in (("train_data_batch_1", "train"), ("val_data", "val")):
            data = np.stack([np.asarray(image).transpose(2, 0, 1).ravel() for image in images[split]])
            batch = {"data": data, "labels": [number[label] for label in labels[split]]}
            if form == "npz":
                np.savez(root / f"{name}.npz", **batch)
            else:
                (root / name).write_bytes(pickle.dumps(batch))
    elif form in ("parquet", "tar"):
        for split, name in (("train", "train"), ("val", "validation")):
            encoding = [(encoded(image), label) for image, label in zip(images[split], labels[split], strict=True)]
            (write_parquet if form == "parquet" else write_shards)(root, name, encoding)
    else:
        for split in images:
            for k, (image, label) in enumerate(zip(images[split], labels[split], strict=True)):
                path = root / split / WNIDS[label] / f"{k:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(image))
    dm = ready(module(root, flip=False, batch_size=1), "fit", "test")
    for split, loader in (
        ("train", dm.train_dataloader()),
        ("val", dm.val_dataloader()),
        ("val", dm.test_dataloader()),
    ):
        found = pairs(*everything(loader))
        expected = [
            (np.asarray(image).transpose(2, 0, 1).tobytes(), label)
            for image, label in zip(images[split], labels[split], strict=True)
        ]
        assert sorted(found) == sorted(expected)
        if split == "val" and form != "folder":
            assert found == expected
    assert dm.class_names == (["0", "1", "2"] if form in ("parquet", "tar") else WNIDS)


def test_files_are_cut_as_published(module: Make, folder: Path) -> None:
    canvases, labels = everything(ready(module()).val_dataloader())
    files = sorted((folder / "val").glob("*/*.JPEG"))
    assert (canvases.dtype, canvases.shape, labels.dtype) == (torch.uint8, (12, 3, SIZE, SIZE), torch.int64)
    for canvas, path in zip(canvases, files, strict=True):
        assert np.array_equal(canvas, published(Image.open(path).convert("RGB"), SIZE))
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_half_of_the_training_images_are_mirrored(module: Make) -> None:
    plain, mirrored = (
        everything(ready(module(flip=flip, batch_size=30)).train_dataloader())[0] for flip in (False, True)
    )
    flipped = [bool(b.equal(a.flip(-1))) for a, b in zip(plain, mirrored, strict=True)]
    assert all(b.equal(a.flip(-1)) or b.equal(a) for a, b in zip(plain, mirrored, strict=True))
    assert 5 < sum(flipped) < 25


def test_random_crops_are_parts_of_the_enlarged_image(module: Make, folder: Path) -> None:
    dm = ready(module(flip=False, random_crop=1.5, upsample=True))
    for epoch in range(2):
        images = dm.train_dataloader().dataset
        found = [images[epoch, k][0]["canvas"].numpy() for k in range(len(images))]
        wide = [images.images.canvas(int(index)) for index in images._order]
        assert all(min(image.shape[1:]) == round(1.5 * SIZE) for image in wide)
        for canvas, image in zip(found, wide, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(image, (3, SIZE, SIZE))[0]
            assert (windows == canvas).all((2, 3, 4)).any()
    canvases, _ = everything(dm.val_dataloader())  # evaluation keeps the centre
    centre, _ = everything(ready(module()).val_dataloader())
    assert canvases.equal(centre)


def test_what_a_module_offers_before_setup(module: Make) -> None:
    dm = module(Path("nowhere"))
    assert (dm.canvas_shape, dm.alphabet, dm.num_classes) == ((3, SIZE, SIZE), 256, 3)
    assert (dm.renderer.channels, dm.renderer.size) == (3, SIZE)
    assert ImageNetDataModule("nowhere").num_classes == 1000
    assert (module(labels=False).num_classes, module(labels=False).class_names) == (0, [])
    assert set(next(iter(ready(module(labels=False)).train_dataloader()))) == {"canvas"}


def test_prediction_needs_no_data(module: Make) -> None:
    dm = module(Path("nowhere"), predict=ImageRequest(num_samples=6))
    dm.setup("predict")
    batches = list(dm.predict_dataloader())
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [0, 1, 2, 0, 1, 2]
    model = Recorder()
    trainer().predict(model, module(Path("nowhere"), predict=ImageRequest(num_samples=6)), return_predictions=False)
    assert len(model.seen["predict"]) == 2


def test_fewer_images_to_evaluate(module: Make) -> None:
    dm = ready(module(val_images=3, test_images=6), "fit", "test")
    assert everything(dm.val_dataloader())[1].tolist() == [0, 1, 2]
    assert everything(dm.test_dataloader())[1].tolist() == [0, 0, 1, 1, 2, 2]


def test_training_without_validation(module: Make, folder: Path) -> None:
    (folder / "val").rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*val; give one that holds train and val"):
        ready(module())
    assert ready(module(val_images=0)).val_dataloader() == []


@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_unreadable_files(module: Make, folder: Path) -> None:
    for path in (
        folder / "train" / WNIDS[0] / f"{WNIDS[0]}_0000.JPEG",
        folder / "val" / WNIDS[1] / f"{WNIDS[1]}_0001.JPEG",
    ):
        path.write_text("This is text.")
    dm = ready(module())
    train, val = dm.train_dataloader(), dm.val_dataloader()
    assert [len(batch["canvas"]) for batch in train] == [4] * 7
    assert everything(val)[1].tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert len(val.unreadable) == 1
    assert f"{WNIDS[1]}_0001.JPEG: cannot be read as an image" in val.unreadable[0]
    dm = ready(module(strict=True, batch_size=30))
    for loader in (dm.train_dataloader(), dm.val_dataloader()):
        with pytest.raises(ValueError, match=r"strict: .*_000\d\.JPEG: cannot be read .*; remove the image, or set"):
            list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_small_images(module: Make, folder: Path, workers: int) -> None:
    path = folder / "val" / WNIDS[0] / "small.png"
    path.write_bytes(encoded(photo(30, 5)))
    with pytest.raises(ValueError, match=r"size: .*small\.png is 30 x 5 pixels, smaller than the canvas of 8; set up"):
        list(ready(module(num_workers=workers)).val_dataloader())
    canvases, _ = everything(ready(module(upsample=True)).val_dataloader())
    assert any(np.array_equal(canvas, published(photo(30, 5), SIZE)) for canvas in canvases)


def test_wrong_numbers_of_classes(module: Make, folder: Path, tmp_path: Path) -> None:
    message = r"num_classes is 1000, but .* has 3 classes: set num_classes to 3 \(in the network too\)"
    with pytest.raises(ValueError, match=message):
        ready(module(num_classes=1000))
    write_arrays(tmp_path / "arrays", "npz", [3, 3])
    with pytest.raises(ValueError, match=message):
        ready(module(tmp_path / "arrays", num_classes=1000))
    write_parquet(tmp_path / "parquet", "train", [(encoded(photo(9, 9)), label) for label in (0, 3)], shards=1)
    with pytest.raises(
        ValueError, match=r"labels of the train split in .* are 0 to 3, out of range: num_classes .* 0\.\.2"
    ):
        ready(module(tmp_path / "parquet", val_images=0))
    write_parquet(tmp_path / "parquet", "train", [(encoded(photo(9, 9)), label) for label in (-1, 2)], shards=1)
    with pytest.raises(ValueError, match="are -1 to 2, out of range"):
        ready(module(tmp_path / "parquet", val_images=0))


def test_what_is_in_the_folder(module: Make, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder: there is no folder .*nowhere"):
        ready(module(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"empty holds neither train nor val \(image files\), nor train_data_batch"
    ):
        ready(module(tmp_path / "empty"))
    write_arrays(folder, "npz", [8, 4])
    with pytest.raises(ValueError, match="holds folder and arrays: say which to read with the option form"):
        ready(module())
    assert len(everything(ready(module(form="arrays")).val_dataloader())[1]) == 4
    assert len(everything(ready(module(form="folder")).val_dataloader())[1]) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1, not 0"),
        ({"form": "zip"}, "form must be folder, arrays, parquet or tar, not 'zip'"),
        ({"form": "folder", "shards": {"train": "a.tar"}}, "form is folder, but shards names tar files: leave one"),
        ({"shards": {"test": "a.tar"}}, "shards: give patterns for train and val, not for test"),
        ({"shards": {}}, "shards: give patterns for train and val, not for nothing"),
        ({"shards": {"train": "a.zip"}}, r"shards: a\.zip: all must be \*\.tar, or all \*\.parquet"),
        ({"shards": {"train": "a.tar", "val": "b.parquet"}}, r"shards: a\.tar; b\.parquet: all must be"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0; set labels to false to do without"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"val_images": -1}, "val_images must be at least 0, not -1"),
        ({"test_images": 0}, "test_images must be at least 1, not 0"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"predict": ImageRequest(labels=[3])}, r"predict\.labels has 3, but must be in 0\.\.2"),
    ],
)
def test_impossible_options(module: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_every_device_needs_something_to_do(module: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dm = ready(module())
    monkeypatch.setattr(dm, "ranks", lambda: (13, 0))
    with pytest.raises(ValueError, match="an epoch has 26 images, 2 for each device, less than a batch"):
        dm.train_dataloader()
    with pytest.raises(ValueError, match="the val split has 12 images for 13 devices: use fewer devices or more"):
        dm.val_dataloader()


def test_options_of_the_command_line(folder: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageNetDataModule, "data")
    given = [f"--data.folder={folder}", "--data.form=folder", "--data.num_classes=3", "--data.predict.num_samples=9"]
    dm = parser.instantiate_classes(parser.parse_args(given)).data
    assert (dm.num_classes, dm.request.num_samples, dm.class_names) == (3, 9, WNIDS)


@pytest.mark.filterwarnings("ignore:.*cannot be read")
@pytest.mark.parametrize("form", ["folder", "parquet", "arrays", "tar"])
def test_a_run_resumes_in_the_middle_of_an_epoch(tmp_path: Path, module: Make, folder: Path, form: str) -> None:
    if form == "arrays":
        folder = tmp_path / form
        write_arrays(folder, "npz", [20, 10, 12], SIZE)
    elif form in ("parquet", "tar"):
        images = [(path.read_bytes(), k % 3) for k, path in enumerate(sorted((folder / "train").glob("*/*")))]
        folder = tmp_path / form
        write = write_parquet if form == "parquet" else write_shards
        write(folder, "train", images, shards=3)
        write(folder, "val", images[:6], shards=1)
    else:
        (folder / "train" / WNIDS[0] / f"{WNIDS[0]}_0003.JPEG").write_text("text")
    whole = fit(module(folder), folder=tmp_path / "runs", max_epochs=2)
    assert len(whole) == len(set(whole)) == 14
    for step, workers in ((3, 1), (7, 0), (9, 0), (12, 2)):
        again = fit(module(folder, num_workers=workers), tmp_path / "runs" / f"step={step}.ckpt", max_epochs=2)
        assert again == whole[step:]


def test_overfitting_batches_repeats_them(module: Make) -> None:
    seen = fit(module(), max_epochs=3, overfit_batches=2)
    assert seen[:2] == seen[2:4] == seen[4:]
    assert len(set(seen)) == 2


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_two_ranks(folder: Path, tmp_path: Path, module: Make, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreadable images change neither the number of batches in training, nor what the other rank evaluates."""
    (folder / "val" / WNIDS[0] / f"{WNIDS[0]}_0001.JPEG").write_text("text")
    (folder / "val" / WNIDS[0] / f"{WNIDS[0]}_0003.JPEG").write_text("text")
    (folder / "train" / WNIDS[2] / f"{WNIDS[2]}_0005.JPEG").write_text("text")
    if form == "tar":
        monkeypatch.setenv("LITSCALE_CACHE", str(tmp_path / "cache"))
        paths = {split: sorted((folder / split).glob("*/*")) for split in ("train", "val")}
        folder = tmp_path / form
        for split, files in paths.items():
            images = [(path.read_bytes(), WNIDS.index(path.parent.name)) for path in files]
            write_shards(folder, split, images, shards=3)
    ranks, _ = two_ranks(Path(__file__).with_name("two_ranks_images.py"), tmp_path, folder)
    assert [len(rank["train"]) for rank in ranks] == [15, 15]
    together = flat(ranks[0]["train"] + ranks[1]["train"])
    assert len(set(together)) == 29  # one image stands in for the one that cannot be read

    dm = ready(module(folder, batch_size=1))
    with pytest.warns(UserWarning, match="cannot be read"):
        alone = [zlib.crc32(batch["canvas"].numpy().tobytes()) for batch in dm.val_dataloader()]
    assert len(alone) == 10
    # Rank 1 has the images 1, 3, 5, ..., of which it leaves out the first two.
    assert flat(ranks[1]["val"]) == [alone[k] for k in (3, 5, 7, 9)]
    assert flat(ranks[0]["val"]) == [alone[k] for k in (0, 1, 2, 4, 6, 8)]
    for rank in ranks:
        assert rank["mean"] == pytest.approx(sum(alone) / 10, rel=1e-5)
