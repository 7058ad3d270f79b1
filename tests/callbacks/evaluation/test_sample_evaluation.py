"""Which windows of a batch the samples are compared with."""

import torch

from callbacks.evaluation.sample_evaluation import without_overlap


def test_windows_side_by_side_are_chosen():
    """Where batches go through whole pieces, the data's statistics are of the windows side by side."""
    canvas, meters = torch.arange(3)[:, None, None, None].expand(-1, 1, 2, 4), torch.tensor([3.0, 4.0, 5.0])
    batch = {"canvas": canvas, "beats_per_bar": meters, "counted": torch.ones(3, 4, dtype=torch.bool)}
    assert without_overlap(batch) is batch
    chosen = without_overlap(batch | {"side_by_side": torch.tensor([True, False, True])})
    assert chosen is not None
    assert chosen["canvas"][:, 0, 0, 0].tolist() == [0, 2]
    assert chosen["beats_per_bar"].tolist() == [3.0, 5.0]
    assert without_overlap(batch | {"side_by_side": torch.zeros(3, dtype=torch.bool)}) is None
