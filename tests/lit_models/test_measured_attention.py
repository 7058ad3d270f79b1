"""LitVAR takes the attention that was measured to be the fastest, and keeps to it."""

import logging
from pathlib import Path

import pytest
import torch
from rank_runs import two_ranks
from var_toys import Outputs, ToyImages, lit_var, quiet, resumed, same

from callbacks import Throughput
from lit_models import lit_var as lit_var_file


def measured(monkeypatch, **times):
    """Let measurements end like this; counts them."""
    sizes = []

    def attention_times(network, batch_size):
        sizes.append(batch_size)
        return times

    monkeypatch.setattr(lit_var_file, "attention_times", attention_times)
    return sizes


@pytest.mark.parametrize(("times", "fastest"), [({"dense": 2.0, "scales": 1.0}, "scales"), ({"dense": 1.0}, "dense")])
def test_the_fastest_is_taken_and_trains_as_any_other(tmp_path, monkeypatch, caplog, times, fastest):
    sizes, losses = measured(monkeypatch, **times), []
    for measure in (False, True):
        module, seen = lit_var(measure_attention=measure), Outputs()
        with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
            quiet(tmp_path, max_steps=4, callbacks=[seen]).fit(module, datamodule=ToyImages())
        losses.append(seen.losses)
        assert module.network.attention == (fastest if measure else None)
    assert sizes == [4]  # once, with the batch's size
    assert f"Attention of training steps: {fastest}, the fastest on cpu (dense " in caplog.text
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_it_is_no_part_of_the_flops_of_a_step(tmp_path, monkeypatch):
    def attention_times(network, batch_size):
        torch.ones(64, 64) @ torch.ones(64, 64)
        return {"dense": 1.0}

    monkeypatch.setattr(lit_var_file, "attention_times", attention_times)
    flops = []
    for options in ({"attention": "dense"}, {"measure_attention": True}):
        counter = Throughput()
        quiet(tmp_path, max_steps=1, callbacks=[counter]).fit(lit_var(**options), datamodule=ToyImages())
        flops.append(counter.state_dict()["flops_per_sample"])
    assert flops[0] == flops[1] > 0


@pytest.mark.slow
def test_it_is_measured_where_it_trains(tmp_path):
    validated, trained = lit_var(measure_attention=True), lit_var(measure_attention=True)
    trainer = quiet(tmp_path, max_steps=1)
    trainer.validate(validated, datamodule=ToyImages(), verbose=False)
    trainer.fit(trained, datamodule=ToyImages())
    assert validated.network.attention is None
    assert trained.network.attention in {"dense", "scales"}


def test_a_resumed_run_keeps_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    seconds = iter([(2.0, 1.0), (2.0, 1.0), (1.0, 2.0)])
    modules = []

    def make():
        measured(monkeypatch, **dict(zip(("dense", "scales"), next(seconds), strict=True)))
        modules.append(lit_var(num_classes=10, measure_attention=True))
        return modules[-1]

    whole, broken = resumed(tmp_path, make)
    assert [module.network.attention for module in modules] == ["scales"] * 3
    same(whole, broken, ("state_dict", "optimizer_states", "measured_attention"))


def test_another_device_is_measured_again(tmp_path, monkeypatch):
    measured(monkeypatch, dense=2.0, scales=1.0)
    trainer = quiet(tmp_path, max_steps=1)
    trainer.fit(lit_var(measure_attention=True), datamodule=ToyImages())
    trainer.save_checkpoint(tmp_path / "var.ckpt")
    checkpoint = torch.load(tmp_path / "var.ckpt", weights_only=True)
    assert checkpoint["measured_attention"] == {"device": "cpu", "attention": "scales"}
    checkpoint["measured_attention"] = {"device": "NVIDIA H100", "attention": "flex"}
    torch.save(checkpoint, tmp_path / "var.ckpt")
    module = lit_var(measure_attention=True)
    path = {"ckpt_path": tmp_path / "var.ckpt", "weights_only": True}
    quiet(tmp_path, max_steps=2).fit(module, datamodule=ToyImages(), **path)
    assert module.network.attention == "scales"


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_all_ranks_take_what_is_fastest_on_the_first(tmp_path, strategy):
    ranks, _ = two_ranks(Path(__file__).parent / "measured_attention_ddp.py", tmp_path / "ranks", strategy)
    assert [rank["attention"] for rank in ranks] == ["scales", "scales"]
    assert [rank["fastest here"] for rank in ranks] == ["scales", "dense"]


def test_a_given_attention_is_not_measured():
    with pytest.raises(ValueError, match=r"the network's attention is dense, but measure_attention chooses it"):
        lit_var(attention="dense", measure_attention=True)
