"""Every command of README and docs runs outside of the repository, with a small model in place of the config's own."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rank_runs import run

from litscale import music
from litscale.models.fractal import Fractal, to_official
from litscale.models.fractal.checkpoints import official_arguments

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - set((ROOT / "docs").glob("tutorial_*.md")))]
TRAINER = {
    "max_epochs": 1,
    "max_steps": 2,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "enable_progress_bar": False,
}
WRITER = {"class_path": "callbacks.PredictionWriter"}
ROLLS = {
    "trainer": {
        **TRAINER,
        "callbacks": [
            {"class_path": "callbacks.MusicEvaluation", "init_args": {"num_samples": 1}},
            WRITER,
        ],
    },
    "model": {
        "init_args": {
            "generation": {"iterations": 1},
            "network": {
                "init_args": {
                    "sizes": [[128, 16], [16, 16], [4, 4], [1, 1]],
                    "widths": [16, 16, 16, 16],
                    "blocks": [1, 1, 1, 0],
                    "heads": [2, 2, 2, 2],
                }
            },
        }
    },
    "data": {"init_args": {"window": 16, "batch_size": 2, "num_workers": 0, "cache_dir": "cache"}},
}
NETWORK = {"sizes": [[16, 16], [4, 4], [1, 1]], "widths": [16] * 3, "blocks": [1] * 3, "heads": [2] * 3}
IMAGENET = {
    "trainer": {**TRAINER, "accelerator": "cpu", "precision": "32-true", "callbacks": [WRITER]},
    "model": {"init_args": {"nll_passes": 1, "generation": {"iterations": 1}, "network": {"init_args": NETWORK}}},
    "data": {
        "init_args": {"size": 16, "batch_size": 2, "num_workers": 0, "num_classes": 2, "predict": {"labels": None}}
    },
}
STEP_OCTAVE_NOTE = {"sizes": [[48, 16], [48, 1], [12, 1], [1, 1]], "widths": [16] * 4, "heads": [2] * 4}
JSB = {
    "trainer": TRAINER,
    "model": {"init_args": {"network": {"init_args": STEP_OCTAVE_NOTE}}},
    "data": {"init_args": {"window": 16, "evaluation": {"stride": 8}, "samples_per_epoch": 16, "cache_dir": "cache"}},
}
DIGITS = {"trainer": TRAINER}
QUICK = {
    "trainer": TRAINER,
    "model": {"init_args": {"network": {"init_args": STEP_OCTAVE_NOTE}}},
    "data": {"init_args": {"window": 16, "cache_dir": "cache"}},
}
QUICK_IMAGES = {"trainer": TRAINER, "model": {"init_args": {"network": {"init_args": {"widths": [16] * 3}}}}}
SHORT_SEARCHES = {
    "LearningRateFinder": ["--trainer.callbacks.num_training_steps", "14"],
    "BatchSizeFinder": ["--trainer.callbacks.max_val", "4"],
}
FAMILIES = {
    "imagenet": IMAGENET,
    "digits": DIGITS,
    "jsb": JSB,
    "images/quick": QUICK_IMAGES,
    "quick": QUICK,
    "rolls": ROLLS,
}


def family(line):
    """Which small model stands in for the command's own."""
    return next((name for name in FAMILIES if name in line), "rolls")


def layer_of(name):
    """The file of a small model, which is no packaged config."""
    return f"small_{name.replace('/', '_')}.yaml"


def stage(line):
    """Commands of a later stage need the runs that those of an earlier one make."""
    if line.startswith(("litscale compare", "litscale report")):
        return 6
    if line.startswith("litscale export"):
        return 5.1
    if " shared/" in line:
        return 5.2
    if line.startswith("litscale evaluate"):
        return 2
    if "distilled" in line:
        return 2.5 if "--ckpt_path" in line else 1.5
    if "sdvar" in line:
        return 5 if "--ckpt_path" in line else 4
    return 3 if "--data.folder runs" in line else 2 if "--ckpt_path" in line else 0 if "vqvae" in line else 1


def commands(page):
    """The ``litscale`` commands of a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("litscale ")]


def test_python_prints_what_the_page_shows(tmp_path):
    """The block of output after a block of Python is what that prints."""
    ((code, printed),) = re.findall(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", (ROOT / "docs" / "var_shapes.md").read_text(), flags=re.DOTALL
    )
    (tmp_path / "program.py").write_text(code)
    assert run(tmp_path / "program.py", tmp_path) == printed


def test_python_of_evaluation_runs(tmp_path):
    """With MIDI files of seven short pieces as samples and as data."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(), flags=re.DOTALL)
    for name, seeds in (("samples", range(3)), ("midi", range(3, 7))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            symbols = np.zeros((128, 32), np.uint8)
            symbols[np.random.default_rng(seed).integers(48, 73, 8), np.arange(0, 32, 4)] = 1
            music.write_midi(music.Roll(symbols, music.RollFormat()), tmp_path / name / f"{seed}.mid")
    (tmp_path / "program.py").write_text(code)
    *rows, runs, scales = run(tmp_path / "program.py", tmp_path).splitlines()
    assert [row.split()[0] for row in rows][:2] == ["pitch_count", "pitch_range"]
    assert len(rows) == 7
    assert len(runs.split()) == len(scales.split()) == 3


@pytest.mark.slow
def test_python_of_models_runs(tmp_path):
    """All of it but what needs the authors' files, which `tests/golden` stand in for elsewhere."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), flags=re.DOTALL)
    given = "import torch\ncanvas = torch.zeros(2, 1, 48, 64, dtype=torch.uint8)\n"
    given += "images, labels = torch.zeros(2, 3, 16, 16), torch.tensor([3, 7])\n"
    shown = [block for block in blocks if ".pth" not in block]
    assert len(shown) == 2
    (tmp_path / "program.py").write_text(
        given + "".join(shown) + "print(output.loss, nats.shape, sampled.images.shape)"
    )
    assert "torch.Size([2]) torch.Size([2, 3, 16, 16])" in run(tmp_path / "program.py", tmp_path)


def test_pages_show_commands_and_existing_files():
    assert sum(len(commands(page)) for page in PAGES) >= 12
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for name in re.findall(r"configs/[\w/]+\.yaml", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


def test_badges_state_what_the_package_requires():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needs = dict(re.findall(r"^(\w+)>=([\d.]+)", setup["options"]["install_requires"], flags=re.MULTILINE))
    pythons = re.findall(r"Python :: ([\d.]+)", setup["metadata"]["classifiers"])
    stated = {
        "python": f"{pythons[0]} to {pythons[-1]}",
        "torch": f"{needs['torch']} or newer",
        "lightning": needs["lightning"],
        "licence": setup["metadata"]["license"],
    }
    for name, value in stated.items():
        badge = f"docs/images/badge_{name}.svg"
        assert f"![{name}: {value}]({badge})" in (ROOT / "README.md").read_text()
        assert f"<title>{name}: {value}</title>" in (ROOT / badge).read_text()
        assert f">{value}</text>" in (ROOT / badge).read_text()


def test_each_promise_names_a_test_that_there_is():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) >= 25
    for file, name in named:
        source = (ROOT / "tests" / file).read_text()
        assert not name or f"def {name}(" in source, f"{file}: {name}"


@pytest.mark.slow
def test_commands_run(tmp_path):
    (tmp_path / "midi").mkdir()
    songs = sorted((ROOT / "tests" / "data" / "pop909").glob("*.mid"))
    for i in range(24):  # enough names for each split to get one
        shutil.copy(songs[i % len(songs)], tmp_path / "midi" / f"song_{i}.mid")
    shutil.copy(songs[0], tmp_path / "song.mid")
    (tmp_path / "short.yaml").write_text(yaml.safe_dump({"trainer": TRAINER}))
    for name, small in FAMILIES.items():
        (tmp_path / layer_of(name)).write_text(yaml.safe_dump(small))
    make_imagenet(tmp_path)
    for split in ("train", "val"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for i in range(8):
            Image.linear_gradient("L").resize((40, 36 + i)).save(tmp_path / "pictures" / split / f"{i}.png")
    pieces = np.random.default_rng(0).integers(48, 73, (4, 40, 4)).tolist()
    (tmp_path / "Jsb16thSeparated.json").write_text(json.dumps({"train": pieces, "valid": pieces, "test": pieces}))
    make_sweep(tmp_path)
    lines = sorted({line for page in PAGES for line in commands(page)}, key=lambda line: (stage(line), line))
    for line in lines:
        words = shlex.split(line)[1:]
        fractal = words[:2] == ["bench", "fractal"]
        if fractal:
            words += ["--patches", "[8]", "--iterations", "[2]", "--repeats", "1"]
        if words[0] == "fit" or family(line) == "imagenet" or (fractal and "--ckpt_path" not in words):
            # after the last config, so that what the command says of callbacks still counts
            after = max((i + 2 for i, word in enumerate(words) if word == "--config"), default=len(words))
            if "--model.pretrained" not in words:  # weights have their network
                words[after:after] = ["--config", layer_of(family(line))]
            words += ["--config", "short.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
            words += ["--trainer.num_nodes", "1", "--trainer.strategy", "auto"]
            for name, option in SHORT_SEARCHES.items():
                words += option if name in line else []
            if "wandb.yaml" in line:
                words += ["--trainer.logger.init_args.offline", "true"]
            if "--ckpt_path" in words:
                words += ["--trainer.max_steps", "3", "--trainer.max_epochs", "2"]
            elif words[0] == "fit":  # pages show several ways to train into one folder
                words += ["--overwrite", "true"]
        if family(line) == "imagenet" and "--data.predict.labels" in words:
            words += ["--data.predict.labels", "[0,1]"]  # of the two classes that there are
        if "--model.generation.weights" in words:
            words += ["--model.generation.weights", "float32"]  # the small model has no layer that is large enough
        if "--watch" in words:
            words += ["--patience", "0"]  # the training has no manifest, or has ended
        if "song.mid" in words:
            words += ["--data.predict.length", "80"]  # the small model's window is shorter than what is given
        done = subprocess.run(
            [sys.executable, "-m", "litscale", *words], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def make_sweep(folder):
    """The sweep of the page, with one trial that takes two steps."""
    (text,) = re.findall(r"```yaml\n(# sweep.yaml\n.*?)```", (ROOT / "docs/sweeps.md").read_text(), flags=re.DOTALL)
    content = yaml.safe_load(text)
    (folder / "validated.yaml").write_text(yaml.safe_dump({"trainer": {"check_val_every_n_epoch": 1}}))
    content |= {"config": [*content["config"], "short.yaml", "validated.yaml"], "trials": 1}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))


def make_imagenet(folder):
    """Two classes of four images, and weights under official names for the small networks."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            (folder / "imagenet" / split / wnid).mkdir(parents=True)
            for i in range(4):
                image = Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
                image.save(folder / "imagenet" / split / wnid / f"{wnid}_{i}.JPEG")
    for name in ("fractalmar_in64", "fractalar_in64"):
        arguments = official_arguments(name) | NETWORK
        torch.save({"model": to_official(Fractal(**arguments))}, folder / f"{name}.pth")
