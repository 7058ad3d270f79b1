"""The network and the sampler that docs/extending.md shows, from the command line and in Python."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_models import Generation, LitFractal
from litscale.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
CONFIG = {
    "seed_everything": 1,
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 30,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [
            {"class_path": "callbacks.LevelLosses"},
            {"class_path": "callbacks.GradientNorms"},
            {"class_path": "callbacks.PredictionWriter", "init_args": {"gif": True}},
        ],
    },
    "model": {
        "class_path": "lit_models.LitFractal",
        "init_args": {
            "network": {"class_path": "same.SameEverywhere", "init_args": {"size": 8, "num_classes": 10}},
            "sampler": "same.draw",
            "generation": {"temperature": 0.9},
            "optimization": {"lr": 0.1, "warmup_steps": 0},
        },
    },
    "data": {"class_path": "datamodules.DigitsDataModule", "init_args": {"predict": {"num_samples": 3}}},
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The module of the page, importable as those of the working directory are."""
    (code,) = [block for block in PAGE.read_text().split("```") if block.startswith("python\n# same.py\n")]
    (tmp_path / "same.py").write_text(code.removeprefix("python\n"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "same", raising=False)
    return importlib.import_module("same")


def test_own_network_trains_tests_and_samples(own, tmp_path, capsys):
    CONFIG["trainer"]["default_root_dir"] = str(tmp_path / "run")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    config = ["--config", str(tmp_path / "own.yaml")]
    main(["fit", *config])
    last = ["--ckpt_path", str(tmp_path / "run" / "checkpoints" / "last.ckpt")]
    capsys.readouterr()
    main(["test", *config, *last])
    out = capsys.readouterr().out
    assert "test/bits_per_dim_unconditional" in out
    # the config that the run saved names the same sampler
    saved = ["--config", str(tmp_path / "run" / "config.yaml")]
    main(["predict", *saved, *last])
    (folder,) = (tmp_path / "run" / "predictions").iterdir()
    with Image.open(folder / "sample_00002.png") as picture:
        assert np.asarray(picture).std() > 0
    assert json.loads((folder / "sample_00000.json").read_text())["settings"]["temperature"] == 0.9


def test_its_likelihood_is_that_of_its_numbers(own):
    """Without training each of the 256 shades is as probable as any other: eight bits a cell."""
    network = own.SameEverywhere(4, 2)
    torch.nn.init.zeros_(network.scores.weight)
    module = LitFractal(network, nll_passes=3, sampler=own.draw)
    assert module.nll_passes == 1  # its likelihood is exact
    canvas = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    module.log = lambda *args, **options: None
    module.test_step({"canvas": canvas, "label": torch.tensor([0, 1, -1, 0, 1])}, 0)
    for name in ("bits_per_dim", "bits_per_dim_unconditional"):
        assert module.likelihoods["test"][name].compute().item() == pytest.approx(8)
    assert module.parameters_by_level().keys() == {"network"}
    assert module.generate(torch.tensor([0, 1]), seed=3).shape == (2, 1, 4, 4)
    assert torch.equal(module.generate(batch_size=2, seed=3), module.generate(batch_size=2, seed=3))


def test_what_an_own_network_cannot_do(own):
    network = own.SameEverywhere(4, 0)
    with pytest.raises(ValueError, match=r"cfg 2.0 needs a network with classes"):
        LitFractal(network, generation=Generation(cfg=2.0))
    with pytest.raises(ValueError, match=r"official_checkpoint needs litscale.models.fractal.Fractal, not SameEv"):
        LitFractal(network, official_checkpoint="published.pth")
    with pytest.raises(ValueError, match=r"callbacks.AttentionDiagnostics needs litscale.models.fractal.Fractal"):
        LitFractal(network).attention_report(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError, match="nll_of_passes"):
        type("Half", (type(network).__mro__[1],), {"forward": lambda self, canvas: None})(network.codec, [(4, 4)])
