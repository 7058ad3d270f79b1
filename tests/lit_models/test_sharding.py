"""Two processes that hold half of the weights each do what one process does."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from rank_runs import run
from sdvar_lit_toys import lit_sdvar
from var_toys import LATE_DISCRIMINATOR, ToyImages, lit_var, lit_vqvae, quiet

HERE = Path(__file__).parent
GENERATORS = ("var", "fractal")
NAMES = (*GENERATORS, "vqvae")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process wrote, and what two wrote."""
    made = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for devices, folder in enumerate(made, 1):
        run(HERE / "sharded_fit.py", folder, devices, ranks=devices)
    return made


def load(path):
    return torch.load(path, weights_only=True)


def same_weights(first, second, name):
    """Assert that weights are about the same.

    Of the tokenizer's biases most are taken away again by norms of single channels or by softmax; their gradients are
    rounding, of which Adam makes steps.
    """
    assert first.keys() == second.keys()
    for key, value in first.items():
        if name != "vqvae" or not key.endswith("bias"):
            torch.testing.assert_close(second[key], value, atol=1e-4, rtol=1e-4, msg=key)


def moments(checkpoint):
    """Running means of gradients, in the order of parameters."""
    state = checkpoint["optimizer_states"][0]
    return [state["state"][number]["exp_avg"] for group in state["param_groups"] for number in group["params"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_validation_are_those_of_one_process(folders, name):
    one, two, other = (load(folders[n] / f"{name}_whole_{rank}.pt") for n, rank in ((0, 0), (1, 0), (1, 1)))
    assert len(set(one["losses"])) == 4
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert "grad_norm/total" in one["metrics"]
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    assert two["metrics"] == pytest.approx(other["metrics"])
    assert one["share"] == 1
    assert two["share"] + other["share"] == pytest.approx(1)
    assert 0.4 < two["share"] < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_rank_zero_alone_samples_between_steps(folders, name):
    one, two = (sorted((folder / f"{name}_whole" / "samples").glob("*/*.png")) for folder in folders)
    assert [path.parent.name for path in two] == ["step_2", "step_2", "step_4", "step_4"]
    assert [path.read_bytes() for path in two] == [path.read_bytes() for path in one]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_those_of_one_process(folders, name):
    one, two = (load(folder / f"{name}_whole" / "step=4.ckpt") for folder in folders)
    same_weights(one["state_dict"], two["state_dict"], name)
    for first, second in zip(moments(one), moments(two), strict=True):
        torch.testing.assert_close(second, first, atol=1e-7, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "score"),
    [
        ("var", partial(lit_var, label_drop=0.0), "val/nats_per_image"),
        ("vqvae", partial(lit_vqvae, discriminator=LATE_DISCRIMINATOR), "val/psnr"),
    ],
)
def test_one_process_reads_them(folders, tmp_path, name, make, score):
    two, path = load(folders[1] / f"{name}_whole_0.pt"), folders[1] / f"{name}_whole" / "step=4.ckpt"
    found = quiet(tmp_path).validate(make(), datamodule=ToyImages(), ckpt_path=path, weights_only=True)[0]
    assert found[score] == pytest.approx(two["metrics"][score], rel=1e-5)
    module, middle = make(), folders[1] / f"{name}_whole" / "step=2.ckpt"
    trainer = quiet(tmp_path, max_steps=4, gradient_clip_val=0.2)
    trainer.fit(module, datamodule=ToyImages(batch_size=8), ckpt_path=middle, weights_only=True)
    same_weights(load(path)["state_dict"], module.state_dict(), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "restarted"])
def test_a_resumed_run_ends_as_the_whole_one(folders, name):
    whole, resumed = (load(folders[1] / f"{name}_{part}" / "step=4.ckpt") for part in ("whole", "resumed"))
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key
    assert load(folders[1] / f"{name}_resumed_0.pt")["losses"] == load(folders[1] / f"{name}_whole_0.pt")["losses"][2:]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_dead_codes_are_restarted(folders, devices):
    name = "network.quantizer.codebook.weight"
    before, after = (load(folders[devices - 1] / "restarted_whole" / f"step={n}.ckpt")["state_dict"] for n in (2, 4))
    assert before[name].abs().max() < 10  # half of the codes were 100
    assert (before[name] != after[name]).any(1).all()


def test_modules_that_cannot_be_sharded_say_so():
    module = lit_sdvar()
    module._device_mesh = {}
    with pytest.raises(ValueError, match=r"LitSDVAR cannot be sharded: give trainer.strategy ddp"):
        module.configure_model()


def test_averages_of_weights_are_refused(tmp_path):
    module = lit_vqvae()
    module._device_mesh = {}
    module.trainer = quiet(tmp_path, callbacks=[EMAWeightAveraging()])
    with pytest.raises(ValueError, match=r"EMAWeightAveraging needs a copy .*: leave it out of trainer.callbacks"):
        module.configure_model()


def test_layers_are_not_split(toy_module, tmp_path):
    for module in (lit_var(), toy_module()):
        module.trainer = quiet(tmp_path)
        module._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 2)}
        with pytest.raises(ValueError, match=r"give the strategy tensor_parallel_size 1, and the number of processes"):
            module.configure_model()
