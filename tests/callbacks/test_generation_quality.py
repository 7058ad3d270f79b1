"""FID and its kin of what a module generates: right numbers, on dashboards, as a table and as files."""

import json

import numpy as np
import pytest
import torch
from callback_toys import FORM, STEPS, Drawing, ToyRolls, TwoLevels, fractal, trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from quality_toys import Bright, Painter, Settings, ToyImages, image, painted
from torch import nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from callbacks import GenerationQuality
from callbacks.evaluation.sample_store import write_npz
from litscale.metrics.features import WEIGHTS

REAL = torch.stack([image(number, number % 2) for number in range(11)])
GENERATED = torch.stack([painted(7, i, i % 2) for i in range(10)])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LITSCALE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def quality(**options):
    return GenerationQuality(**{"num_samples": 10, "batch_size": 4, "seed": 7, "features": Bright(), **options})


def scores(run, prefix="val"):
    return {key.removeprefix(prefix + "/"): value.item() for key, value in run.callback_metrics.items()}


def expected_scores():
    """By torch-fidelity; three of ten samples are of the wrong class."""
    (own, logits), (real, _) = Bright()(GENERATED), Bright()(REAL)
    fid = fid_statistics_to_metric(fid_features_to_statistics(own), fid_features_to_statistics(real), False)
    shares = prc_features_to_metric(own, real, verbose=False)
    return {
        "fid": fid["frechet_inception_distance"],
        "kid": kid_features_to_metric(own, real, kid_subset_size=10, verbose=False)["kernel_inception_distance_mean"],
        "precision": shares["precision"],
        "recall": shares["recall"],
        "inception_score": isc_features_to_metric(logits)["inception_score_mean"],
        "class_accuracy": (logits.argmax(1) == torch.arange(10) % 2).float().mean().item(),
    }


def test_values(tmp_path):
    module, run = Painter(), trainer(tmp_path, callbacks=[quality()])
    run.validate(module, ToyImages(), verbose=False)
    assert module.asked == [(7, [0, 1, 2, 3]), (7, [4, 5, 6, 7]), (7, [8, 9])]
    assert scores(run) == pytest.approx(expected_scores(), rel=1e-4)
    assert 0.5 < scores(run)["class_accuracy"] < 1


class Named(ToyImages):
    known_class_names = ("dark", "bright")


def test_classes_with_names_have_a_table_of_their_own(tmp_path):
    run = trainer(tmp_path, callbacks=[quality()])
    run.test(Painter(), Named(), verbose=False)
    right = Bright()(GENERATED)[1].argmax(1) == torch.arange(10) % 2
    shares = {name: right[kind::2].float().mean().item() for kind, name in enumerate(("dark", "bright"))}
    assert len(set(shares.values())) == 2
    assert json.loads((tmp_path / "quality_test.json").read_text())["class_accuracy"] == pytest.approx(shares)
    markdown = (tmp_path / "quality_test.md").read_text()
    assert all(f"| {name} | {share:.1%} |" in markdown for name, share in shares.items())
    assert not [key for key in run.callback_metrics if "dark" in key]
    run.test(Painter(), ToyImages(), verbose=False)
    assert "class_accuracy" not in json.loads((tmp_path / "quality_test.json").read_text())


def test_table_and_files_of_a_test(tmp_path, capsys):
    run = trainer(tmp_path, callbacks=[quality(keep="npz", cfg=3.0)])
    run.test(Painter(), ToyImages(), verbose=False)
    found = json.loads((tmp_path / "quality_test.json").read_text())
    assert found["scores"] == pytest.approx(scores(run, "test"))
    assert (found["samples"], found["reference_samples"], found["features"]) == (10, 11, "Bright")
    assert found["settings"] == {"cfg": 3.0, "temperature": 1.0, "seed": 7}
    assert found["reference"] == "the test data of ToyImages"
    markdown = (tmp_path / "quality_test.md").read_text()
    assert f"| fid | {found['scores']['fid']:.5g} |" in markdown
    assert "cfg 3.0" in markdown
    assert "class_accuracy" in capsys.readouterr().out
    with np.load(tmp_path / "quality_test.npz") as file:
        assert np.array_equal(file["arr_0"], GENERATED.permute(0, 2, 3, 1).numpy())
        assert file["arr_1"].tolist() == [0, 1] * 5
    assert not (tmp_path / "quality_batches").exists()


def test_kept_pictures(tmp_path):
    (tmp_path / "quality_validate").mkdir()
    (tmp_path / "quality_validate" / "999999.png").write_bytes(b"of another run")
    trainer(tmp_path, callbacks=[quality(keep="png")]).validate(Painter(), ToyImages(), verbose=False)
    files = sorted((tmp_path / "quality_validate").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(10)]
    kept = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(kept, GENERATED.permute(0, 2, 3, 1).numpy())


def test_grey_images_are_kept_as_rgb(tmp_path):
    canvases = torch.arange(2 * 16, dtype=torch.uint8).view(2, 1, 4, 4)
    path = write_npz(tmp_path / "grey.npz", iter([canvases]), None, 2)
    with np.load(path) as file:
        assert list(file) == ["arr_0"]
        assert np.array_equal(file["arr_0"], canvases[:, 0, :, :, None].numpy().repeat(3, axis=3))


def test_what_is_kept_is_a_reference(tmp_path):
    trainer(tmp_path, callbacks=[quality(keep="npz")]).validate(Painter(), ToyImages(), verbose=False)
    run = trainer(tmp_path, callbacks=[quality(reference=str(tmp_path / "quality_validate.npz"))])
    run.validate(Painter(), ToyImages(), verbose=False)
    found = scores(run)
    assert abs(found["fid"]) < 1e-3
    assert (found["precision"], found["recall"]) == (1, 1)


def test_mean_and_covariance_alone(tmp_path):
    path = tmp_path / "adm.npz"
    np.savez(path, **fid_features_to_statistics(Bright()(REAL)[0]))
    run = trainer(tmp_path, callbacks=[quality(reference=str(path))], limit_val_batches=1)
    run.validate(Painter(), ToyImages(), verbose=False)
    expected = expected_scores()
    assert scores(run) == pytest.approx({key: expected[key] for key in ("fid", "inception_score", "class_accuracy")})


def test_features_of_the_data_are_cached(tmp_path, cache):
    def seen(count=11, extractor=None, **options):
        extractor = Bright() if extractor is None else extractor
        run = trainer(tmp_path, callbacks=[quality(features=extractor)], **options)
        run.validate(Painter(), ToyImages(count=count), verbose=False)
        return extractor.seen, scores(run)

    limited, _ = seen(limit_val_batches=2)
    assert limited == 1 + 10 + 8
    assert not cache.exists()
    first, expected = seen()
    assert first == 1 + 10 + 11
    assert len(list(cache.iterdir())) == 1
    again, found = seen(limit_val_batches=1)
    assert again == 1 + 10
    assert found == pytest.approx(expected)
    other, _ = seen(count=12)
    assert other == 1 + 10 + 12
    wider = Bright()
    wider.register_buffer("version", torch.ones(1))
    assert seen(extractor=wider)[0] == 1 + 10 + 11
    assert len(list(cache.iterdir())) == 3


def test_settings_are_changed_only_meanwhile(tmp_path):
    module = Painter()
    callback = quality(cfg=2.0, temperature=0.5, every_n_validations=2)
    run = trainer(tmp_path, callbacks=[callback], max_epochs=3, num_sanity_val_steps=1)
    run.fit(module, ToyImages())
    assert module.settings == [Settings(2.0, 0.5)] * 6  # epochs 1 and 3
    assert module.generation == Settings()
    assert scores(run)["fid"] == pytest.approx(expected_scores()["fid"], rel=1e-4)
    assert not list(tmp_path.glob("quality*"))


def test_zero_leaves_the_evaluation_to_validate(tmp_path):
    module = Painter()
    trainer(tmp_path, callbacks=[quality(every_n_validations=0)]).fit(module, ToyImages())
    assert module.asked == []


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_evaluated_in_any_order(tmp_path, first):
    module, averaging = Painter(), EMAWeightAveraging(decay=0.5, use_buffers=False)
    callbacks = [quality(), averaging]
    trainer(tmp_path, callbacks=callbacks if first else callbacks[::-1]).fit(module, ToyImages())
    assert torch.equal(module.weights[0], averaging._average_model.module.first.weight)
    assert module.weights[0].tolist() != [[1, 1]]


def test_an_interrupted_evaluation_goes_on(tmp_path):
    module = Painter()
    module.fail_at = 8
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(tmp_path, callbacks=[quality()]).test(module, ToyImages(), verbose=False)
    assert len(list((tmp_path / "quality_batches").rglob("*.npy"))) == 2
    again = Painter()
    again.first.weight.data += 1  # other weights change everything
    trainer(tmp_path, callbacks=[quality()]).test(again, ToyImages(), verbose=False)
    assert again.asked == [(7, [0, 1, 2, 3]), (7, [4, 5, 6, 7]), (7, [8, 9])]
    for options in ({"seed": 8}, {"cfg": 2.0}, {"batch_size": 5}):
        other = Painter()
        trainer(tmp_path, callbacks=[quality(**options)]).test(other, ToyImages(), verbose=False)
        assert sum(len(numbers) for _, numbers in other.asked) == 10
    same = Painter()
    run = trainer(tmp_path, callbacks=[quality()])
    run.test(same, ToyImages(), verbose=False)
    assert same.asked == [(7, [8, 9])]
    assert scores(run, "test") == pytest.approx(expected_scores(), rel=1e-4)
    assert not (tmp_path / "quality_batches").exists()


def test_rolls_are_compared_by_their_statistics(tmp_path):
    run = trainer(tmp_path, callbacks=[GenerationQuality(num_samples=6, batch_size=3)])
    run.validate(fractal(num_classes=2), ToyRolls(num_classes=2), verbose=False)
    found = scores(run)
    assert found["fid"] > 0
    assert {"kid", "precision", "recall"} <= found.keys()
    assert not {"class_accuracy", "inception_score"} & found.keys()
    assert json.loads((tmp_path / "quality_validate.json").read_text())["features"] == "MusicFeatures"


def test_unconditional_data_and_extractors_of_other_classes(tmp_path):
    run = trainer(tmp_path, callbacks=[quality()])
    run.validate(Painter(), ToyImages(num_classes=0), verbose=False)
    assert "class_accuracy" not in scores(run)
    run = trainer(tmp_path, callbacks=[quality(features=Bright(num_classes=None))])
    run.validate(Painter(), ToyImages(), verbose=False)
    assert "class_accuracy" not in scores(run)
    run = trainer(tmp_path, callbacks=[quality(features=Bright(num_classes=3))])
    with pytest.raises(ValueError, match="Bright knows 3 classes, the data has 2"):
        run.validate(Painter(), ToyImages(), verbose=False)


def test_bad_options_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="num_samples must be at least 4, not 3"):
        quality(num_samples=3)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        quality(batch_size=0)
    with pytest.raises(ValueError, match="Flatten has no int attribute num_features"):
        quality(features=nn.Flatten())
    run = trainer(tmp_path, callbacks=[quality(num_samples=9)])
    with pytest.raises(ValueError, match=r"num_samples 9 is not a multiple of the 2 classes.*give 10"):
        run.validate(Painter(), ToyImages(), verbose=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    run = trainer(tmp_path, callbacks=[quality(features=None)])
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        run.validate(Painter(), ToyImages(), verbose=False)


def test_what_does_not_fit_is_named(tmp_path):
    def validate(module, data, **options):
        trainer(tmp_path, callbacks=[quality(**options)]).validate(module, data, verbose=False)

    np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3))
    module = Painter()
    with pytest.raises(ValueError, match="the extractor gives 5 features"):
        validate(module, ToyImages(), reference=str(tmp_path / "other.npz"))
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        validate(module, ToyImages(), reference=str(tmp_path / "missing.npz"))
    with pytest.raises(MisconfigurationException, match="TwoLevels to have `generate`"):
        trainer(tmp_path, callbacks=[quality()]).fit(TwoLevels(), ToyImages())
    with pytest.raises(MisconfigurationException, match="cfg: Drawing has no `generation` settings"):
        validate(Drawing(), ToyRolls(), cfg=2.0)
    with pytest.raises(MisconfigurationException, match="keep is for images"):
        validate(Drawing(), ToyRolls(), keep="png")
    cache = ToyImages()
    cache.folder, cache.token_metadata = tmp_path, {}
    with pytest.raises(
        MisconfigurationException, match="a cache of tokens has none: give the data module of the images"
    ):
        validate(module, cache)
    assert module.asked == []  # before hours of sampling


def test_what_parallel_decoding_took(tmp_path):
    module, run = fractal(last="ar"), trainer(tmp_path, callbacks=[quality(num_samples=5, features=None)])
    run.validate(module, ToyRolls(), verbose=False)
    took = []
    for index in (torch.arange(4), torch.arange(4, 5)):
        module.generate(batch_size=len(index), seed=7, index=index)
        took.append(module.decoding_counts())
    passes = sum(counts["patch_passes"] for counts in took)
    found = {name: value for name, value in scores(run).items() if "decoding" in name}
    assert found.keys() == {
        f"decoding/{name}" for name in ("passes", "passes_per_patch", "accepted_per_pass", "margin")
    }
    assert found["decoding/passes_per_patch"] == pytest.approx(passes / (5 * 4))
    assert found["decoding/accepted_per_pass"] == pytest.approx(5 * FORM.pitches * STEPS / passes)
