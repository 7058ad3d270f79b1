"""Batches of samples that an interrupted evaluation leaves for the next one."""

import torch
from quality_toys import painted

from callbacks.evaluation.sample_store import SampleStore

IMAGES = torch.stack([painted(7, i, i % 2) for i in range(10)])


def test_stored_batches(tmp_path):
    store = SampleStore(tmp_path / "batches", "key")
    store.write(4, IMAGES[4:6])
    assert torch.equal(store.read(4, 2), IMAGES[4:6])
    assert store.read(4, 3) is None
    assert SampleStore(tmp_path / "batches", "other").read(4, 2) is None
    SampleStore(tmp_path / "batches", "other").write(0, IMAGES[:1])
    store.remove()
    assert store.read(4, 2) is None
    assert SampleStore(tmp_path / "batches", "other").read(0, 1) is not None
