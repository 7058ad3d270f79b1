"""Pictures of decoding runs and of masks."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from callbacks.reporting.decode_pictures import COLOURS, mask_pictures, timeline
from callbacks.reporting.figures import write_picture
from litscale.models.sdvar import MASKS, DecodeReport, Round, prefix_mask

ROUNDS = (
    Round(images=(0, 1), first=0, drafted=2, accepted=(0, 2), kept=(1, 3), draft_tokens=5, target_tokens=14),
    Round(images=(0,), first=1, drafted=2, accepted=(2,), kept=(3,), draft_tokens=13, target_tokens=29),
    Round(images=(1,), first=3, drafted=0, accepted=(0,), kept=(1,), draft_tokens=0, target_tokens=16),
)
REPORT = DecodeReport(4, 2, ROUNDS, seconds={"wall": 1.0})


def painted(figure, mark):
    """Number of pixels in a mark's colour."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    picture = np.asarray(Image.open(buffer).convert("RGB"), dtype=float)
    colour = 255 * np.array(to_rgb(COLOURS[mark]))
    return int((np.abs(picture - colour).max(-1) < 2).sum())


def test_a_timeline_has_a_cell_for_each_mark():
    figure = timeline(REPORT)
    [axis] = figure.axes
    assert [text.get_text() for text in axis.texts] == ["0", "1", "1", "2", "3", "0", "1", "2", "3"]
    assert [cell.get_y() + 0.4 for cell in axis.patches] == [0] * 5 + [1] * 4
    assert "target 2.00, draft 3.00 (2 images)" in axis.get_title()
    assert all(painted(figure, mark) > 100 for mark in COLOURS)
    plain = timeline(
        DecodeReport(
            4, 1, (Round(images=(0,), first=3, drafted=0, accepted=(0,), kept=(1,), draft_tokens=0, target_tokens=16),)
        )
    )
    assert painted(plain, "t") > painted(plain, "d") > 0  # the legend has all colours


def test_at_most_so_many_rows():
    [axis] = timeline(
        DecodeReport(
            4,
            17,
            (
                Round(
                    images=tuple(range(17)),
                    first=3,
                    drafted=0,
                    accepted=(0,) * 17,
                    kept=(1,) * 17,
                    draft_tokens=0,
                    target_tokens=16,
                ),
            ),
        )
    ).axes
    assert len(axis.patches) == 16


def test_mask_pictures_show_the_masks():
    figure = mask_pictures((1, 2, 3), 2)
    assert [axis.get_title() for axis in figure.axes] == list(MASKS)
    for axis, name in zip(figure.axes, MASKS, strict=True):
        shown = axis.images[0].get_array()
        assert np.array_equal(shown, prefix_mask(name, (1, 2, 3), 2).numpy())
    with pytest.raises(ValueError, match=r"entry_num must be in 0..2"):
        mask_pictures((1, 2, 3), 3)


def test_pictures_are_written_whole(tmp_path):
    path = write_picture(timeline(REPORT), tmp_path / "timeline.png")
    assert Image.open(path).size[0] == 1080
    assert [entry.name for entry in tmp_path.iterdir()] == ["timeline.png"]
    with pytest.raises(OSError, match="could not write the file"):
        write_picture(timeline(REPORT), tmp_path / "missing" / "timeline.png")
