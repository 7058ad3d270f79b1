import io
import struct
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, photo, published
from PIL import Image

from datamodules.images.decoding import Crop, CutAndFlip, UnreadableImageError, centre_crop, decode


def canvas(data: bytes, size: int = 16) -> np.ndarray:
    return Crop(size, upsample=True)(decode(data, "it"), "it")


@pytest.mark.parametrize(
    "sides", [(1, 7), (7, 1), (1, 1), (16, 16), (17, 16), (31, 32), (32, 33), (65, 127), (500, 375), (33, 1000)]
)
def test_the_crop_is_the_published_one(sides: tuple[int, int]) -> None:
    image = photo(*sides)
    found = Crop(16, upsample=True)(image, "it")
    assert (found.dtype, found.shape) == (np.uint8, (3, 16, 16))
    assert np.array_equal(found, published(image, 16))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 24))
def test_the_crop_on_any_size(width: int, height: int, size: int) -> None:
    image = photo(width, height)
    assert np.array_equal(centre_crop(image, size).transpose(2, 0, 1), published(image, size))


def test_an_image_of_the_canvas_size_stays_as_it_is() -> None:
    image = photo(16, 16)
    assert np.array_equal(canvas(encoded(image)), np.asarray(image).transpose(2, 0, 1))


def test_orientation_is_not_obeyed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image = photo(40, 20)
    data = encoded(image, "JPEG", exif=exif)
    assert decode(data, "it").size == (40, 20)
    assert np.array_equal(canvas(data), canvas(encoded(image, "JPEG")))


def test_grey_is_repeated_and_transparency_dropped() -> None:
    grey = photo(20, 20).convert("L")
    expected = published(Image.merge("RGB", [grey] * 3), 16)
    assert np.array_equal(canvas(encoded(grey)), expected)
    faint = Image.merge("LA", [grey, Image.new("L", grey.size, 7)])
    assert np.array_equal(canvas(encoded(faint)), expected)
    rgb = photo(20, 20)
    faint = rgb.copy()
    faint.putalpha(7)
    assert np.array_equal(canvas(encoded(faint)), published(rgb, 16))


def test_palettes_are_looked_up_and_the_first_frame_is_taken() -> None:
    first, second = (photo(20, 20, seed).quantize(16) for seed in (0, 1))
    assert np.array_equal(canvas(encoded(first)), published(first.convert("RGB"), 16))
    animated = encoded(first, "GIF", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(animated)) as opened:
        assert opened.n_frames == 2
    assert np.array_equal(canvas(animated), published(first.convert("RGB"), 16))


def test_cmyk() -> None:
    data = encoded(photo(20, 20).convert("CMYK"), "JPEG", quality=95)
    found = canvas(data).astype(int)
    assert np.abs(found - published(photo(20, 20), 16)).mean() < 8
    assert decode(data, "it").mode == "RGB"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.array([[0, 128, 129, 257], [300, 32768, 65000, 65535]] * 2, np.uint16)
    found = np.asarray(decode(encoded(Image.fromarray(deep)), "it"))
    assert np.array_equal(found, np.repeat(np.rint(deep / 257).astype(np.uint8)[..., None], 3, axis=2))
    assert found.max() == 255
    assert found[1, 0, 0] == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_damaged_images_are_named(kind: str) -> None:
    data = encoded(photo(60, 60), kind)
    for damaged in (data[: len(data) // 2], data[:10], b"", b"This is text."):
        with pytest.raises(UnreadableImageError, match=r"^shark: cannot be read as an image \((?!.*BytesIO)"):
            decode(damaged, "shark")


def test_files_are_read_as_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "a.JPEG"
    path.write_bytes(encoded(photo(30, 20), "JPEG"))
    assert np.array_equal(np.asarray(decode(path, "a")), np.asarray(decode(path.read_bytes(), "a")))
    with pytest.raises(UnreadableImageError, match=r"^b: cannot be read"):
        decode(tmp_path / "b.JPEG", "b")


def test_floating_point_has_no_range() -> None:
    data = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match="floating-point numbers of unknown range"):
        decode(data, "it")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_other_formats_are_not_opened_whatever_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would run Ghostscript for EPS in a file called .JPEG."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **_: started.append(command))
    path = tmp_path / "n0001_1.JPEG"
    for content in (EPS, encoded(photo(8, 8), "TGA"), encoded(photo(8, 8), "ICO")):
        path.write_bytes(content)
        for source in (path, content):
            with pytest.raises(UnreadableImageError, match=r"^n0001_1: cannot be read as an image"):
                decode(source, "n0001_1")
    assert started == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "MPO"])
def test_formats_that_are_opened(kind: str) -> None:
    assert decode(encoded(photo(9, 7), kind), "photo").size == (9, 7)


def test_an_image_that_would_fill_the_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another library has lifted Pillow's own limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    png = bytearray(encoded(photo(8, 8)))
    png[16:24] = struct.pack(">II", 2**15, 2**14)  # width and height, in the header
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(UnreadableImageError, match=r"^bomb: .* \(32768 x 16384 pixels are more than 268435456\)"):
        decode(bytes(png), "bomb")


def test_small_images_are_an_error_with_a_mend() -> None:
    message = r"^size: it is 40 x 15 pixels, smaller than the canvas of 16; set upsample to true"
    with pytest.raises(ValueError, match=message) as caught:
        Crop(16, upsample=False)(photo(40, 15), "it")
    assert not isinstance(caught.value, UnreadableImageError)
    Crop(15, upsample=False)(photo(40, 15), "it")


def test_a_hair_is_not_enlarged_to_gigabytes() -> None:
    with pytest.raises(UnreadableImageError, match="1 x 30000 pixels are too narrow to enlarge"):
        Crop(256, upsample=True)(Image.new("RGB", (1, 30000)), "it")


def test_places_and_flips_are_alike_often() -> None:
    canvas = np.arange(12).reshape(1, 3, 4)
    cut = CutAndFlip(2, flip=True)
    corners = [cut(canvas, np.random.default_rng((0, k)))[0, 0] for k in range(6000)]
    counts = Counter(map(tuple, corners))
    pairs = [(4 * y + x, 4 * y + x + 1) for y in range(2) for x in range(3)]
    assert set(counts) == {*pairs, *(pair[::-1] for pair in pairs)}
    assert all(abs(count - 500) < 100 for count in counts.values())
