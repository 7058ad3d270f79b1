from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, photo, published
from PIL import Image

from datamodules.images.renderer import ImageRenderer


def symbols(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_pixels_are_read_back(tmp_path: Path, channels: int) -> None:
    renderer = ImageRenderer(channels, 8)
    canvas = symbols(channels, 8, 8)
    (path,) = renderer.save(canvas, tmp_path / "temperature_0.9")
    assert path == tmp_path / "temperature_0.9.png"
    assert np.array_equal(renderer.read(path), canvas)
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((8, 8), "L" if channels == 1 else "RGB")


def test_other_images_are_read_as_training_images_are(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(photo(50, 37), "JPEG"))
    image = Image.open(path)
    assert np.array_equal(ImageRenderer(3, 16).read(path), published(image, 16))
    assert np.array_equal(ImageRenderer(1, 16).read(path), published(image.convert("L"), 16))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 200))
def test_pictures_are_large_enough_and_hold_each_pixel(height: int, width: int) -> None:
    canvas = symbols(3, height, width)
    page = ImageRenderer(3, 8).picture(canvas)
    assert min(page.shape[:2]) >= 128
    factor = page.shape[0] // height
    assert page.shape == (height * factor, width * factor, 3)
    for corner in (0, factor - 1):
        assert np.array_equal(page[corner::factor, corner::factor], canvas.transpose(1, 2, 0))


def test_one_channel_is_grey_and_large_images_stay() -> None:
    canvas = symbols(1, 130, 140)
    page = ImageRenderer(1, 8).picture(canvas)
    assert page.shape == (130, 140, 3)
    assert all(np.array_equal(page[..., k], canvas[0]) for k in range(3))


def test_what_was_given_has_a_border_on_its_own_side() -> None:
    canvas = symbols(3, 16, 16)
    known = np.ones((3, 16, 16), bool)
    known[:, 4:8, 4:8] = False
    plain, page = ImageRenderer(3, 16).picture(canvas), ImageRenderer(3, 16).picture(canvas, known=known)
    changed = (plain != page).any(2)
    assert 0 < changed.sum() <= 4 * 32  # a line one pixel wide around 32 x 32
    assert not changed[32:64, 32:64].any()
    assert set(map(tuple, page[changed])) == {(255, 64, 64)}


def test_animations(tmp_path: Path) -> None:
    frames = [symbols(3, 8, 8, seed) for seed in range(3)]
    unknown = [np.full((3, 8, 8), k < 1) for k in range(3)]
    paths = ImageRenderer(3, 8).save(frames[-1], tmp_path / "a", frames=frames, unknown=unknown)
    assert [path.name for path in paths] == ["a.png", "a.gif"]
    with Image.open(paths[1]) as image:
        assert (image.n_frames, image.size) == (3, (128, 128))
        shade = np.asarray(image.convert("RGB"))
        assert shade.std(axis=(0, 1)).max() == 0  # nothing is made yet
        image.seek(2)
        assert np.asarray(image.convert("RGB")).std() > 10


def test_sheets() -> None:
    canvases = np.stack([symbols(1, 8, 8, seed) for seed in range(5)])
    page = ImageRenderer(1, 8).sheet(canvases, columns=3)
    assert (page.dtype, page.shape) == (np.uint8, (2 * 66 + 2, 3 * 66 + 2, 3))
    for k in range(5):
        top, left = 2 + k // 3 * 66, 2 + k % 3 * 66
        assert np.array_equal(page[top : top + 64 : 8, left : left + 64 : 8, 0], canvases[k, 0])
    assert (page[68:, 134:] == 255).all()  # the sixth place
    with pytest.raises(ValueError, match="a sheet needs images and columns, not 0 and 3"):
        ImageRenderer(1, 8).sheet(canvases[:0], 3)


def test_sheets_with_names() -> None:
    canvases = np.stack([symbols(1, 8, 8, seed) for seed in range(3)])
    plain = ImageRenderer(1, 8).sheet(canvases, columns=2)
    page = ImageRenderer(1, 8).sheet(canvases, columns=2, names=["bag", "", "a very long name of a class"])
    line = 12  # pixels that each image has below it
    assert page.shape == (plain.shape[0] + 2 * line, *plain.shape[1:])
    assert np.array_equal(page[:66], plain[:66])
    first, second, third = page[66:78, 2:66], page[66:78, 68:132], page[66 + 66 + line : 144 + line, 2:66]
    assert 0 < (first < 128).any(2).sum() < (third < 128).any(2).sum()
    assert (second == 255).all()
    assert (page[:, -2:] == 255).all()
    with pytest.raises(ValueError, match="zip"):
        ImageRenderer(1, 8).sheet(canvases, names=["bag"])


def test_statistics() -> None:
    renderer = ImageRenderer(3, 8)
    half = np.zeros((3, 8, 8), np.uint8)
    half[:, :, 4:] = 255
    assert renderer.statistics(half) == pytest.approx({"brightness": 0.5, "contrast": 0.5, "roughness": 1 / 14})
    flat = renderer.statistics(np.full((3, 8, 8), 51, np.uint8))
    assert flat == pytest.approx({"brightness": 0.2, "contrast": 0, "roughness": 0})
    assert renderer.statistics(symbols(3, 200, 200))["roughness"] == pytest.approx(1 / 3, abs=0.01)


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    renderer = ImageRenderer(3, 8)
    with pytest.raises(ValueError, match="wav: images have no sound; set wav to false"):
        renderer.save(symbols(3, 8, 8), tmp_path / "a", wav=True)
    with pytest.raises(ValueError, match="score: images have no score; set score to false"):
        renderer.save(symbols(3, 8, 8), tmp_path / "a", score=True)
    assert not list(tmp_path.iterdir())
    for wrong in (symbols(1, 8, 8), symbols(3, 8, 8).astype(float), symbols(3, 8, 8)[0]):
        with pytest.raises(ValueError, match=r"symbols must be uint8 \[3, H, W\], not"):
            renderer.picture(wrong)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        renderer.read(tmp_path / "nowhere.png")
