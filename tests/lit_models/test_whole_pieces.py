"""Scores of whole pieces: each step of each piece counts once, whatever the batches and processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_runs import run
from whole_piece_runs import LENGTHS, STRIDE, WINDOW, chorales, module, validate

from datamodules import RollEvaluation
from litscale.models.fractal import Fractal

SCRIPT = Path(__file__).parents[1] / "whole_piece_runs.py"


def rolls(path):
    """Pieces of the file, by hand: uint8 ``[48, steps]``."""
    for piece in json.loads(path.read_text())["valid"]:
        roll = np.zeros((48, len(piece)), np.uint8)
        for step, chord in enumerate(piece):
            roll[np.array(chord) - 36, step] = 1
        yield roll


def prefix_nats(network, roll, first, last):
    """Nats of the columns ``first`` to ``last`` of a piece, as those of a canvas of just these."""
    if first == last:
        return 0.0
    canvas = torch.from_numpy(roll[None, None, :, first:last])
    return float(network.nll(canvas, start=torch.tensor([first])).double())


def by_hand(network, path):
    """Nats per step of whole pieces, and of windows side by side.

    A step's likelihood is that of its window's past and itself less that of the past alone.
    """
    total = beside = windows = 0.0
    for roll in rolls(path):
        steps = roll.shape[1]
        for step in range(steps):
            # the window that reaches no further than needed
            start = max(0, -(-(step + 1 - WINDOW) // STRIDE) * STRIDE)
            total += prefix_nats(network, roll, start, step + 1) - prefix_nats(network, roll, start, step)
        for start in range(0, steps - WINDOW + 1, WINDOW):
            beside += prefix_nats(network, roll, start, start + WINDOW)
            windows += 1
    return total / sum(LENGTHS), beside / (windows * WINDOW)


def test_scores_by_hand(tmp_path):
    path = chorales(tmp_path)
    network = module().network.eval()
    whole, beside = by_hand(network, path)
    assert abs(whole - beside) > 0.01
    for batch_size in (1, 4, 99):
        scores = validate(1, batch_size, tmp_path)[1]
        assert scores["val/nats_per_step"] == pytest.approx(whole, rel=1e-5)
        assert scores["val/nats_per_slot"] == pytest.approx(whole / 4, rel=1e-5)
        assert scores["val/bits_per_dim"] == pytest.approx(whole / 48 / np.log(2), rel=1e-5)
        assert scores["val/nats_per_step_side_by_side"] == pytest.approx(beside, rel=1e-5)
        assert scores["val/nats_per_slot_side_by_side"] == pytest.approx(beside / 4, rel=1e-5)
    # without a stride, windows lie side by side
    plain = validate(1, 3, tmp_path, evaluation=RollEvaluation())[1]
    assert plain["val/nats_per_step"] == pytest.approx(beside, rel=1e-5)
    assert plain["val/nats_per_slot"] == pytest.approx(beside / 4, rel=1e-5)
    assert "val/nats_per_step_side_by_side" not in plain


def test_two_processes_equal_one(tmp_path):
    scores = []
    for devices, batch_size in ((1, 4), (2, 3)):
        folder = tmp_path / str(devices)
        folder.mkdir()
        chorales(folder)
        run(SCRIPT, folder, devices, batch_size, ranks=devices)
        scores.append(json.loads((folder / "scores.json").read_text()))
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    assert len(scores[0]) == 6


@pytest.mark.parametrize(
    ("options", "able"),
    [
        ({}, True),
        ({"scan": "row_major"}, True),  # there is one row of patches, then one column
        ({"sizes": [(8, 8), (4, 1), (2, 1), (1, 1)], "scan": "row_major"}, False),
        ({"sizes": [(8, 8), (4, 1), (2, 1), (1, 1)]}, True),
        ({"sizes": [(8, 8), (8, 4), (4, 1), (1, 1)]}, True),
        ({"sizes": [(8, 8), (4, 4), (2, 1), (1, 1)]}, False),
        ({"generators": ["ar", "mar", "ar"]}, False),
    ],
    ids=str,
)
def test_columns_one_after_the_other(options, able):
    torch.manual_seed(0)
    options = {
        "sizes": [(8, 8), (8, 1), (4, 1), (1, 1)],
        "generators": ["ar"] * 3,
        "scan": "column_major",
        "positions": "rope",
        "widths": [8] * 4,
        "blocks": [1] * 4,
        "heads": [1] * 4,
        "codec": "binary",
    } | options
    network = Fractal(**options).eval()
    canvas = torch.randint(0, 2, (2, 1, 8, 8), dtype=torch.uint8)
    if not able:
        with pytest.raises(ValueError, match=r"evaluation\.stride to null"):
            network.nll_of_columns(canvas)
        return
    columns = network.nll_of_columns(canvas)
    assert columns.shape == (1, 2, 8)
    assert torch.equal(columns.sum(2).float(), network.nll_of_passes(canvas))
    changed = canvas.clone()
    changed[..., 5] ^= 1
    assert torch.equal(network.nll_of_columns(changed)[..., :5], columns[..., :5])
