"""LitFractal in a trainer: reports, evaluation, prediction, errors."""

import argparse
import math

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lit_models import Generation, Optimization, lit_fractal
from litscale.models import small_weights
from litscale.models.fractal import compiled, to_official


def quiet(tmp_path, **options):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **options,
    )


class Reports(Callback):
    """Keeps what the training steps report."""

    def __init__(self):
        self.reports = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Keep one."""
        self.reports.append(outputs["report"])


class Losses(Callback):
    """Keeps the training losses."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Keep one."""
        self.losses.append(outputs["loss"].item())


def test_reports_name_each_level_once(tmp_path, toy_data, toy_module):
    seen = Reports()
    quiet(tmp_path, max_steps=2, callbacks=[seen], log_every_n_steps=2).fit(toy_module(), datamodule=toy_data())
    assert seen.reports[0].keys() == {"loss/leaf", "loss/level_1", "mask_fraction/level_1"}
    assert seen.reports[1].keys() == seen.reports[0].keys() | {"entropy"}
    plain = Reports()
    quiet(tmp_path, max_steps=1, callbacks=[plain]).fit(toy_module(("ar", "ar"), guiding=False), datamodule=toy_data())
    assert plain.reports[0].keys() <= {"entropy"}  # the leaf's loss is train/loss already


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_is_the_mean_over_canvases(tmp_path, toy_data, toy_module, stage):
    module, data = toy_module(("ar", "ar"), guiding=False), toy_data(windows=6)  # a batch of 4 and one of 2
    results = getattr(quiet(tmp_path), stage)(module, datamodule=data, verbose=False)[0]
    nats = module.network.nll(data.canvas)
    prefix = "val" if stage == "validate" else "test"
    assert results[f"{prefix}/nats_per_step"] == pytest.approx(nats.mean().item() / 8, rel=1e-5)
    assert results[f"{prefix}/bits_per_dim"] == pytest.approx(nats.mean().item() / 64 / math.log(2), rel=1e-5)


def test_evaluation_repeats_itself(tmp_path, toy_data, toy_module):
    module = toy_module(("mar", "mar"))
    first, second = (quiet(tmp_path).validate(module, datamodule=toy_data(), verbose=False) for _ in range(2))
    assert first == second


def test_labels_and_passes_are_reported(tmp_path, toy_data, toy_module):
    module, data = toy_module(("mar", "mar"), guiding=False, num_classes=3, nll_passes=4), toy_data(windows=6)
    for name, parameter in module.network.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.5)  # at first labels hardly matter
    label = torch.arange(6) % 3
    batch = {"canvas": data.canvas, "label": label}
    given, blank = (module.network.nll(data.canvas, x, 100).mean().item() / 8 for x in (label, None))
    assert abs(given - blank) > 0.05
    results = quiet(tmp_path).test(module, DataLoader([batch], batch_size=None), verbose=False)[0]
    error = results["test/nats_per_step_standard_error"]
    assert results["test/nats_per_step"] == pytest.approx(given, abs=4 * error)
    blank_error = results["test/nats_per_step_unconditional_standard_error"]
    assert results["test/nats_per_step_unconditional"] == pytest.approx(blank, abs=4 * blank_error)
    means = torch.stack([module.network.nll(data.canvas, label, 4).mean() / 8 for _ in range(40)])
    assert 0.7 * means.std() < error < 3 * means.std()  # of stratified passes it is rather too large
    validated = quiet(tmp_path).validate(module, DataLoader([batch], batch_size=None), verbose=False)[0]
    assert not any("unconditional" in name for name in validated)


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_the_cost_of_small_weights_is_reported(tmp_path, monkeypatch, toy_data, toy_module, stage, weights):
    monkeypatch.setattr(small_weights, "SMALLEST", 0)
    options = {"guiding": False, "num_classes": 3, "nll_passes": 2}
    module, data = toy_module(("mar", "ar"), generation=Generation(weights=weights), **options), toy_data(windows=6)
    torch.manual_seed(0)
    for parameter in module.network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    label = torch.arange(6) % 3
    loader = DataLoader([{"canvas": data.canvas, "label": label}], batch_size=None)
    results = getattr(quiet(tmp_path), stage)(module, loader, verbose=False)[0]
    wanted = {}
    for suffix, given in ("", label), ("_unconditional", None):
        full = module.network.nll(data.canvas, given, 2, seed=0) / 8
        with small_weights.small_weights(module.network, weights):
            small = module.network.nll(data.canvas, given, 2, seed=0) / 8
        wanted |= {suffix: full, f"{suffix}_small_weights": small, f"{suffix}_small_weights_change": small - full}
    for suffix, nats in wanted.items():
        if stage == "test" or "unconditional" not in suffix:
            score = results[f"{'val' if stage == 'validate' else stage}/nats_per_step{suffix}"]
            assert score == pytest.approx(nats.mean().item(), rel=1e-4, abs=1e-5)
            assert abs(score) > 1e-5
    plain = toy_module(("mar", "ar"), **options)
    assert module.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(module.state_dict())
    names = getattr(quiet(tmp_path), stage)(plain, loader, verbose=False)[0]
    assert names == {name: score for name, score in results.items() if "small_weights" not in name}


def test_compile_is_refused_before_any_work(tmp_path, monkeypatch, toy_data, toy_module):
    """Options that do not go together when the module is built, a missing compiler before the first batch."""

    def fail(*args, **options):
        raise RuntimeError("no C++ compiler")

    with pytest.raises(ValueError, match="levels are all AR"):
        toy_module(("ar", "mar"), generation=Generation(decoding="sequential", compile=True))
    module = toy_module(("ar", "ar"), generation=Generation(decoding="sequential", compile=True))
    compiled.check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(module, "training_step", fail)
    with pytest.raises(ValueError, match=r"generation\.compile needs .* Torch says: no C\+\+ compiler"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=toy_data())


def test_compiling_is_said_before_the_first_samples(tmp_path, monkeypatch, toy_data, toy_module, caplog):
    monkeypatch.setattr(lit_fractal, "check_compiler", lambda device: None)
    module = toy_module(("ar", "ar"), generation=Generation(decoding="sequential", compile=True))
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=toy_data())
    assert caplog.text.count("graphs are made with the first samples") == 1


def test_training_is_the_same_with_small_weights(tmp_path, monkeypatch, toy_data, toy_module):
    monkeypatch.setattr(small_weights, "SMALLEST", 0)
    trained = []
    for weights in ("float32", "int8"):
        module = toy_module(generation=Generation(2, weights=weights))
        quiet(tmp_path, max_steps=6, val_check_interval=2).fit(module, datamodule=toy_data())
        trained.append(module.state_dict())
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_starts_from_official_weights(tmp_path, toy_module):
    other = toy_module(("ar", "mar"), codec="rgb", sizes=[(8, 8), (4, 4), (1, 1)], guiding=False)
    with torch.no_grad():
        other.network.no_class.fill_(7.0)
    options = argparse.Namespace(lr=1e-4)  # the published files hold one
    torch.save({"model": to_official(other.network), "args": options}, tmp_path / "official.pth")
    arguments = {"codec": "rgb", "sizes": [(8, 8), (4, 4), (1, 1)], "guiding": False}
    module = toy_module(("ar", "mar"), official_checkpoint=str(tmp_path / "official.pth"), **arguments)
    assert torch.equal(module.network.no_class, torch.full((1, 16), 7.0))
    with pytest.raises(ValueError, match=r"the official checkpoint does not fit this model: missing .*next_fractal"):
        toy_module(("mar", "mar"), official_checkpoint=str(tmp_path / "official.pth"), **arguments)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file"):
        toy_module(official_checkpoint="nowhere.pth")


@pytest.mark.slow
def test_compiled_blocks_change_neither_loss_nor_names(tmp_path, toy_data, toy_module):
    losses = []
    for compile_blocks in (False, True):
        module, seen = toy_module(("mar", "ar"), compile_blocks=compile_blocks), Losses()
        quiet(tmp_path, max_steps=3, callbacks=[seen]).fit(module, datamodule=toy_data())
        losses.append(seen.losses)
        sampled = module.generate(batch_size=1, seed=0)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert module.state_dict().keys() == toy_module(("mar", "ar")).state_dict().keys()
    plain = toy_module(("mar", "ar"))
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.generate(batch_size=1, seed=0), sampled)
    assert module.attention_report(toy_data().canvas[:1]).keys() == {"level_0", "level_1"}


def test_predict_keeps_known_cells_and_records_frames(tmp_path, toy_data, toy_module):
    module = toy_module(generation=Generation(iterations=2))
    module.record_frames = True
    canvas = toy_data().canvas[:2]
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[..., :3] = True
    batch = {"canvas": canvas, "known": known, "index": torch.tensor([4, 5]), "seed": 9}
    first, second = module.predict_step(batch, 0), module.predict_step(batch, 0)
    assert torch.equal(first["canvas"][known], canvas[known])
    assert torch.equal(first["canvas"], second["canvas"])
    assert not torch.equal(first["canvas"], module.predict_step(batch | {"seed": 8}, 0)["canvas"])
    assert first["settings"]["seed"] == 9
    assert first["settings"]["iterations"] == 2
    assert torch.equal(first["frames"][-1][0], first["canvas"])
    assert first["frames"][-1][1].all()


def test_generate_takes_any_length(toy_module):
    module = toy_module(("ar", "ar"))
    assert module.generate(batch_size=2, length=20, seed=0).shape == (2, 1, 8, 20)


def test_nan_loss_stops_before_the_step(tmp_path, toy_data, toy_module):
    module = toy_module(optimization=Optimization(lr=1e-2))
    with torch.no_grad():
        module.network.leaf.bias.fill_(float("nan"))
    before = module.network.no_class.clone()
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 0: lower the learning rate"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=toy_data())
    assert torch.equal(module.network.no_class, before)


@pytest.mark.parametrize(
    ("attribute", "value"), [("canvas_shape", (3, 8, 8)), ("canvas_shape", (1, 16, 8)), ("alphabet", 5)]
)
def test_data_that_does_not_fit_is_refused(tmp_path, toy_data, toy_module, attribute, value):
    data = toy_data()
    setattr(data, attribute, value)
    with pytest.raises(ValueError, match=r"make the network's codec, velocity_bins and sizes\[0\] agree"):
        quiet(tmp_path, max_steps=1).fit(toy_module(), datamodule=data)


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_more_classes_than_the_network_has_are_refused_whatever_the_labels_are(tmp_path, toy_data, toy_module, stage):
    data = toy_data()  # without labels
    data.num_classes = 4
    message = (
        "the data has 4 classes, the network 3: set the network's num_classes to 4, or the data's num_classes "
        r"\(or the number of its class_names\) to 3"
    )
    with pytest.raises(ValueError, match=message):
        getattr(quiet(tmp_path, max_steps=1), stage)(toy_module(num_classes=3), datamodule=data)
    getattr(quiet(tmp_path, max_steps=1), stage)(toy_module(num_classes=4), datamodule=data)
    getattr(quiet(tmp_path, max_steps=1), stage)(toy_module(), datamodule=data)  # reads no labels


def test_prediction_counts_no_classes(tmp_path, toy_data, toy_module):
    class Away(toy_data):
        @property
        def num_classes(self):
            """Of pieces that are not here."""
            raise FileNotFoundError("no such folder")

        def predict_dataloader(self):
            known = torch.zeros_like(self.canvas[:2], dtype=torch.bool)
            request = {"canvas": self.canvas[:2], "known": known, "index": torch.arange(2), "seed": 1}
            return DataLoader([request | {"label": torch.tensor([0, 2])}], batch_size=None)

    (made,) = quiet(tmp_path).predict(toy_module(num_classes=3), datamodule=Away())
    assert len(made["canvas"]) == 2
    with pytest.raises(ValueError, match=r"labels must be in -1\.\.1, got 0\.\.2"):
        quiet(tmp_path).predict(toy_module(num_classes=2), datamodule=Away())


def test_all_that_data_lack_is_one_error(tmp_path, toy_data, toy_module):
    class Bare(LightningDataModule):
        batch_size = 4

        def train_dataloader(self):
            return toy_data().train_dataloader()

    missing = "`canvas_shape` and `alphabet`.*`num_classes`, `renderer` and `described_request`.*see docs/extending.md"
    with pytest.raises(MisconfigurationException, match=f"LitFractal needs Bare to have {missing}"):
        quiet(tmp_path, max_steps=1).fit(toy_module(), datamodule=Bare())


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, toy_data, toy_module):
    trainer = quiet(tmp_path, max_steps=1)
    trainer.fit(toy_module(("mar", "mar")), datamodule=toy_data())
    trainer.save_checkpoint(tmp_path / "mar.ckpt")
    with pytest.raises(ValueError, match=r"has another architecture: missing .*config.yaml in its run folder"):
        quiet(tmp_path).validate(toy_module(("ar", "mar")), datamodule=toy_data(), ckpt_path=tmp_path / "mar.ckpt")


def test_learns_on_bf16(tmp_path, toy_data, toy_module):
    module = toy_module(("mar", "ar"))
    quiet(tmp_path, max_steps=4, precision="bf16-mixed", accumulate_grad_batches=2).fit(module, datamodule=toy_data())
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert module.network.no_class.dtype == torch.float32
