"""Two processes with half a batch each do what one process does with the whole batch."""

import runpy
from pathlib import Path

import pytest
import torch
from rank_runs import run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process wrote, and what two wrote."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    runpy.run_path(str(HERE / "var_ddp.py"))["run"](1, one)
    run(HERE / "var_ddp.py", two, 2, ranks=2)
    return one, two


@pytest.mark.parametrize("name", ["vqvae", "var"])
def test_two_processes_equal_one(folders, name):
    one, two, other = (
        torch.load(folders[devices - 1] / f"{name}_{rank}.pt", weights_only=True)
        for devices, rank in ((1, 0), (2, 0), (2, 1))
    )
    torch.testing.assert_close(one["loss"], two["loss"])
    assert one["gradients"].keys() == two["gradients"].keys()
    assert len(one["gradients"]) > 20
    for key, gradient in one["gradients"].items():
        torch.testing.assert_close(gradient, two["gradients"][key], atol=1e-5, rtol=1e-3, msg=key)
    counted = {"vqvae": ["drawn", "network.quantizer.hits"], "var": ["frequencies"]}[name]
    for key in counted:
        assert one["buffers"][key].sum() > 0
        assert torch.equal(one["buffers"][key], two["buffers"][key])
        assert torch.equal(two["buffers"][key], other["buffers"][key])
    for key, value in two["state"].items():  # also after codes were restarted
        assert torch.equal(value, other["state"][key]), key
    if name == "var":
        for key in ("val/nats_per_image", "val/unigram_nats_per_token", "val/accuracy"):
            assert one["metrics"][key] == pytest.approx(two["metrics"][key], rel=1e-4)


def test_two_processes_write_the_same_cache(folders):
    one, two = ({path.name: path.read_bytes() for path in (folder / "tokens").iterdir()} for folder in folders)
    assert one == two
    assert len(one) == 11
