"""Two processes that hold half of the weights each do what one process does."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rank_runs import run
from sdvar_lit_toys import lit_sdvar
from var_toys import ToyImages, lit_var, lit_vqvae, quiet

HERE = Path(__file__).parent
NAMES = ("var", "fractal")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process wrote, and what two wrote."""
    made = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for devices, folder in enumerate(made, 1):
        run(HERE / "sharded_fit.py", folder, devices)
    return made


def load(path):
    return torch.load(path, weights_only=True)


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


@pytest.mark.parametrize("name", NAMES)
def test_rank_zero_alone_samples_between_steps(folders, name):
    one, two = (sorted((folder / f"{name}_whole" / "samples").glob("*/*.png")) for folder in folders)
    assert [path.parent.name for path in two] == ["step_2", "step_2", "step_4", "step_4"]
    assert [path.read_bytes() for path in two] == [path.read_bytes() for path in one]


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_those_of_one_process(folders, name):
    one, two = (load(folder / f"{name}_whole" / "step=4.ckpt")["state_dict"] for folder in folders)
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-4, rtol=1e-4, msg=key)


def test_one_process_reads_them(folders, tmp_path):
    two, path = load(folders[1] / "var_whole_0.pt"), folders[1] / "var_whole" / "step=4.ckpt"
    found = quiet(tmp_path).validate(lit_var(), datamodule=ToyImages(), ckpt_path=path, weights_only=True)[0]
    assert found["val/nats_per_image"] == pytest.approx(two["metrics"]["val/nats_per_image"], rel=1e-5)
    module, middle = lit_var(label_drop=0.0), folders[1] / "var_whole" / "step=2.ckpt"
    trainer = quiet(tmp_path, max_steps=4, gradient_clip_val=0.2)
    trainer.fit(module, datamodule=ToyImages(batch_size=8), ckpt_path=middle, weights_only=True)
    for key, value in load(path)["state_dict"].items():
        torch.testing.assert_close(module.state_dict()[key], value, atol=1e-4, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_ends_as_the_whole_one(folders, name):
    whole, resumed = (load(folders[1] / f"{name}_{part}" / "step=4.ckpt") for part in ("whole", "resumed"))
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key
    assert load(folders[1] / f"{name}_resumed_0.pt")["losses"] == load(folders[1] / f"{name}_whole_0.pt")["losses"][2:]


@pytest.mark.parametrize("make", [lit_vqvae, lit_sdvar])
def test_modules_that_cannot_be_sharded_say_so(make):
    module = make()
    module._device_mesh = {}
    with pytest.raises(ValueError, match=rf"{type(module).__name__} cannot be sharded: give trainer.strategy ddp"):
        module.configure_model()


def test_layers_are_not_split(toy_module):
    for module in (lit_var(), toy_module()):
        module._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 2)}
        with pytest.raises(ValueError, match=r"give the strategy tensor_parallel_size 1, and the number of processes"):
            module.configure_model()
