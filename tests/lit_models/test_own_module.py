"""The modules that docs/extending.md shows, trained by the command line and loaded again."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_models import load_run
from litscale.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FRACTAL = {
    "sizes": [[8, 8], [4, 4], [1, 1]],
    "generators": ["ar", "ar"],
    "widths": [16, 16, 16],
    "blocks": [1, 1, 1],
    "heads": [2, 2, 2],
    "codec": "gray",
    "num_classes": 10,
}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Writes a file of the page to the folder where the test works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name):
        (code,) = [block for block in PAGE.read_text().split("```") if block.startswith(f"python\n# {name}\n")]
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
        Path(name).write_text(code.removeprefix("python\n"))

    return write


def fit(model, *options):
    """Train on digits for two steps."""
    trainer = {"accelerator": "cpu", "max_steps": 2, "limit_val_batches": 1, "logger": False, "val_check_interval": 1}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer |= {"default_root_dir": "run"}
    data = {"class_path": "datamodules.DigitsDataModule", "init_args": {"batch_size": 8}}
    Path("config.yaml").write_text(yaml.safe_dump({"trainer": trainer, "model": model, "data": data}))
    main(["fit", "--config", "config.yaml", *options])


def test_a_schedule(example):
    example("schedules.py")
    network = {"class_path": "litscale.models.fractal.Fractal", "init_args": FRACTAL}
    options = ["--model.optimization.lr", "0.5", "--model.optimization.warmup_steps", "1"]
    fit({"class_path": "schedules.LitFractalInverseSquareRoot", "init_args": {"network": network}}, *options)
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0]["lr"] == pytest.approx(0.5 * (1 / 3) ** 0.5)
    assert type(load_run("run", "last").optimization).__name__ == "InverseSquareRoot"


def test_a_module(example):
    example("autoencoder.py")
    (settings,) = [
        block for block in PAGE.read_text().split("```") if block.startswith("yaml\nmodel:\n  class_path: auto")
    ]
    fit(yaml.safe_load(settings.removeprefix("yaml\n"))["model"], "--model.optimization.lr", "0.01")
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    module = load_run("run", "last")
    assert (saved["global_step"], module.optimization.lr) == (2, 0.01)
    assert all(torch.equal(value, saved["state_dict"][name]) for name, value in module.state_dict().items())
    assert module.error({"canvas": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}).isfinite()
