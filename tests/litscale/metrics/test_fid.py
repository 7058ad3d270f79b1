"""The Frechet distance: against formulas, against torch-fidelity, over batches."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from litscale.metrics import (
    FeatureStatistics,
    FrechetDistance,
    InceptionFeatures,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
)
from litscale.metrics.features import extract
from litscale.metrics.fid import Statistics, frechet_distance
from litscale.metrics.reference import read_reference

GENERATOR = torch.Generator().manual_seed(0)


def features(count, size=6, shift=0.0):
    return torch.randn(count, size, generator=GENERATOR) * torch.arange(1, size + 1) + shift


def statistics(*batches):
    metric = FeatureStatistics(batches[0].shape[1])
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def write_images(folder, low, count):
    """Smooth random images of 32 pixels; uint8 ``[count, 3, 32, 32]``."""
    folder.mkdir()
    coarse = torch.randint(low, 256, (count, 3, 4, 4), generator=GENERATOR).float()
    images = torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 255).to(torch.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:04d}.png")
    return images


# theirs takes the root of a matrix of 2048 rows for the FID, half a minute; of small ones below
@pytest.mark.slow
@pytest.mark.parametrize("with_fid", [True, False])
def test_all_scores_are_torch_fidelitys_on_the_same_folders(tmp_path, weights, with_fid):
    own, other = write_images(tmp_path / "own", 0, 6), write_images(tmp_path / "other", 100, 5)
    expected = calculate_metrics(
        input1=str(tmp_path / "own"),
        input2=str(tmp_path / "other"),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        kid_subset_size=5,
        fid=with_fid,
        **dict.fromkeys(("isc", "kid", "prc", "save_cpu_ram"), True),
        **dict.fromkeys(("cuda", "cache", "verbose"), False),
        batch_size=4,
        isc_splits=6,
    )
    network = InceptionFeatures(str(weights))
    (own_features, logits), (other_features, _) = extract(network, own), extract(network, other)
    fid, score, kid, pr = FrechetDistance(2048), InceptionScore(), KernelDistance(), PrecisionRecall()
    fid.reference = statistics(other_features)
    kid.reference = pr.reference = other_features
    for rows in torch.arange(6).flip(0).split(4):  # in another order and other batches
        fid.update(own_features[rows])
        score.update(logits[rows], rows)
        kid.update(own_features[rows], rows)
        pr.update(own_features[rows], rows)
    found = fid.compute()
    assert found > 0.1
    if with_fid:
        assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert score.compute() == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert kid.compute() == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    shares = {name: value.item() for name, value in pr.compute().items()}
    assert shares == pytest.approx({name: expected[name] for name in ("precision", "recall")})

    np.savez(tmp_path / "adm.npz", **fid_features_to_statistics(other_features))
    fid.reference = read_reference(tmp_path / "adm.npz", 2048).statistics
    assert fid.compute() == pytest.approx(found.item(), rel=1e-4)
    fid.reference = statistics(own_features)
    assert abs(fid.compute()) < 1e-3


def test_gaussians_along_the_axes():
    first = Statistics(torch.tensor([0.0, 1.0]).double(), torch.tensor([4.0, 9.0]).double().diag())
    second = Statistics(torch.tensor([3.0, 1.0]).double(), torch.tensor([1.0, 25.0]).double().diag())
    assert frechet_distance(first, second) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(second, first) == pytest.approx(14)


@pytest.mark.parametrize("count", [5, 50])
def test_fewer_and_more_images_than_features(count):
    own, other = features(count, 20), features(count, 20, shift=0.5)
    expected = fid_statistics_to_metric(fid_features_to_statistics(own), fid_features_to_statistics(other), False)
    found = frechet_distance(statistics(own), statistics(other))
    assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


def test_the_batch_size_does_not_matter():
    own, other = features(50), features(40, shift=1)
    whole = frechet_distance(statistics(own), statistics(other))
    parts = frechet_distance(statistics(*own.split(7)), statistics(*other.split(1)))
    assert parts == pytest.approx(whole.item(), rel=1e-10)


def test_sums_far_from_zero_lose_nothing():
    own = features(50) + 1e4
    assert torch.allclose(statistics(own.double()).sigma, own.double().T.cov(), rtol=1e-6, atol=1e-6)


def test_equal_statistics_are_at_distance_zero():
    own = statistics(features(30, 100) * 100)
    assert abs(frechet_distance(own, own)) < 1e-3


def test_what_cannot_be_computed():
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        statistics(features(1))
    metric = FrechetDistance(6)
    metric.update(features(5))
    with pytest.raises(ValueError, match="reference is not set"):
        metric.compute()
    metric.reference = statistics(features(5, 7))
    with pytest.raises(ValueError, match="statistics of 6 and of 7 features"):
        metric.compute()
