"""The benchmark against the official code knows repositories by their files, and runs one that asks for a GPU."""

import re
import sys
from pathlib import Path

import pytest
import torch

# A stand-in for FractalGen's code: our own network under its names and arguments, on a GPU that there is not.
STUB = """
import torch
from torch import nn
from litscale.models.fractal import Fractal, to_official
from litscale.models.fractal.checkpoints import official_arguments
from models import pixelloss

class FractalGen(nn.Module):
    def __init__(self, fractal_level, **arguments):
        super().__init__()
        self.inner = Fractal(**official_arguments(arguments)).cuda()
        self.class_emb, self.fake_latent = self.inner.class_emb, self.inner.no_class

    def state_dict(self):
        return to_official(self.inner)

    def forward(self, images, label):
        canvas = pixelloss.symbols(images.cuda())
        if self.training:
            return self.inner(canvas, label).loss
        return self.inner.nll(canvas).mean() / canvas[0].numel()

    def sample(self, conditions, iterations, cfg, cfg_schedule, temperature, filter_threshold, fractal_level):
        assert [len(each) for each in conditions] == [2 * 2], "classes, then none"
        return torch.zeros(2).cuda(0, non_blocking=True)
"""
PIXELS = """
import torch
def symbols(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]).cuda(), torch.tensor([0.229, 0.224, 0.225]).cuda()
    return ((images * std[:, None, None] + mean[:, None, None]) * 255).round().to(torch.uint8)
"""


@pytest.fixture
def official_speed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import official_speed

    yield official_speed
    for name in ("official_speed", "measuring"):
        sys.modules.pop(name, None)


def clone(folder, **files):
    """A folder with files in ``models``, by their names without ending."""
    (folder / "models").mkdir(parents=True)
    for name, text in files.items():
        (folder / "models" / f"{name}.py").write_text(text)
    return folder


def run(official_speed, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["official_speed.py", *map(str, words)])
    official_speed.main()


def test_a_clone_is_known_by_its_files(official_speed, tmp_path):
    fractalgen = clone(tmp_path / "a", fractalgen="", mar="", ar="", pixelloss="")
    assert official_speed.detect(fractalgen) == "FractalGen"
    assert official_speed.detect(clone(tmp_path / "b", var="", vqvae="", quant="")) == "VAR"


def test_other_folders_are_refused(official_speed, tmp_path, monkeypatch, capsys):
    fractalgen = clone(tmp_path / "fractalgen", fractalgen="import not_there", pixelloss="")
    for words, message in (
        ([tmp_path / "gone"], "gone: no such folder; give a clone of FractalGen or VAR"),
        (
            [clone(tmp_path / "none", mar="")],
            "none is no clone of FractalGen or VAR: FractalGen has models/fractalgen.py and models/pixelloss.py; VAR "
            "has models/var.py and models/vqvae.py\n",  # and not what MAR has, which is refused
        ),
        (
            [clone(tmp_path / "mar", mar="", diffloss="")],
            "mar is MAR, whose continuous tokens a diffusion network draws",
        ),
        ([fractalgen, "--model", "var_d16"], "--model var_d16 is no network of FractalGen"),
        ([fractalgen, "--repeats", "0"], "--batch, --threads and --repeats must be at least 1"),
        ([fractalgen], "the official code imports not_there, which is not installed: pip install not_there"),
    ):
        with pytest.raises(SystemExit) as end:
            run(official_speed, monkeypatch, "--official", *words)
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_a_clone_runs_without_a_gpu_beside_ours(official_speed, tmp_path, monkeypatch, capsys):
    before, path = (torch.Tensor.cuda, torch.nn.Module.cuda), list(sys.path)
    folder = clone(tmp_path / "fractalgen", fractalgen=STUB, pixelloss=PIXELS)
    sizes = ["--patches", "2", "--widths", "64", "32", "16", "--blocks", "1", "1", "1", "--cfg", "2"]
    run(official_speed, monkeypatch, "--official", folder, *sizes, "--batch", "2", "--repeats", "1")
    out = capsys.readouterr().out
    assert "FractalGen: fractalar_in64, 8 px, widths [64, 32, 16], blocks [1, 1, 1], batch 2" in out
    assert float(re.search(r"difference of results: (\S+)", out)[1]) < 1e-6
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [
        ["training step", "official"],
        ["training step", "litscale"],
        ["sampling, cfg 2", "official"],
        ["sampling, cfg 2", "litscale"],
        ["sampling, cfg 2", "litscale, jacobi"],
    ]
    assert [float(row[3]) for row in rows[2:] if row[1] == "official"] == [1, 1]
    # nothing of it stays
    assert (torch.Tensor.cuda, torch.nn.Module.cuda) == before
    assert sys.path == path
    assert not any(name.split(".")[0] == "models" for name in sys.modules)
