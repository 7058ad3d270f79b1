"""Inception Score, KID, precision and recall: torch-fidelity's numbers, in whatever order images come."""

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from litscale.metrics import FeatureBank, InceptionScore, KernelDistance, PrecisionRecall

GENERATOR = torch.Generator().manual_seed(0)
OWN = torch.randn(110, 5, generator=GENERATOR)
REFERENCE = torch.randn(120, 5, generator=GENERATOR) * 1.5 + 0.3


def filled(metric, values, sizes):
    """Give a metric rows in a shuffled order."""
    order = torch.randperm(len(values), generator=GENERATOR)
    for rows in order.split(sizes):
        metric.update(values[rows], rows)
    return metric


def test_scores_of_any_order_and_batch_size(monkeypatch):
    monkeypatch.setattr("litscale.metrics.fidelity.KID_SUBSET", 100)
    for size in (1, 64, 110):
        score = filled(InceptionScore(), OWN, size).compute()
        assert score == pytest.approx(isc_features_to_metric(OWN)["inception_score_mean"])
    kid, shares = filled(KernelDistance(), OWN, 64), filled(PrecisionRecall(), OWN, 64)
    kid.reference = shares.reference = REFERENCE
    expected = kid_features_to_metric(OWN, REFERENCE, kid_subset_size=100, verbose=False)
    assert kid.compute() == pytest.approx(expected["kernel_inception_distance_mean"])
    assert expected["kernel_inception_distance_std"] > 0  # so the subsets, hence the order, matter
    expected = prc_features_to_metric(OWN, REFERENCE, verbose=False)
    found = shares.compute()
    assert found["precision"] == pytest.approx(expected["precision"])
    assert found["recall"] == pytest.approx(expected["recall"])
    assert found["recall"] < found["precision"] < 1


def test_confident_and_even_logits_score_the_number_of_classes():
    logits = 100 * torch.eye(4).repeat(250, 1)
    assert filled(InceptionScore(), logits, 100).compute() == pytest.approx(4, rel=1e-2)


def test_numbers_of_images_stay_exact():
    bank = FeatureBank()
    last = 2**24 - 1
    bank.update(torch.tensor([[1.0], [2.0]]), torch.tensor([last, last - 1]))
    assert bank.compute().flatten().tolist() == [2, 1]
    with pytest.raises(ValueError, match="image 16777216: at most 16777216 images"):
        bank.update(torch.zeros(1, 1), torch.tensor([2**24]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_what_cannot_be_computed():
    with pytest.raises(ValueError, match="no image"):
        FeatureBank().compute()
    kid, shares = KernelDistance(), PrecisionRecall()
    for metric in (kid, shares):
        with pytest.raises(ValueError, match="reference is not set"):
            metric.compute()
        metric.update(OWN[:1], torch.arange(1))
        metric.reference = REFERENCE[:, :3]
        with pytest.raises(ValueError, match="5 and 3 features"):
            metric.compute()
        metric.reference = REFERENCE
    with pytest.raises(ValueError, match="KID needs at least 2 images and 2 of the reference, not 1 and 120"):
        kid.compute()
    with pytest.raises(ValueError, match="at least 4 images and as many of the reference, not 1 and 120"):
        shares.compute()
