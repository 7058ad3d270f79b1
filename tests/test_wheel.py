"""The wheel holds the configs, and works where nothing of the repository is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("callbacks", "configs", "datamodules", "lit_models", "litscale")


def check(*words, **options):
    """Run it, and show what it printed if it fails."""
    run = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=900, **options)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built without network from a copy of the sources."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    check(*pip, "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_a_wheel_holds_four_packages_and_all_configs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(SOURCES) - {"configs"}
    for folder in ("configs", "cli/report/templates", "pretrained"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "litscale" / folder).rglob("*.*")}
        assert {name for name in names if name.startswith(f"litscale/{folder}/")} == files
    modules = {path.relative_to(ROOT).as_posix() for name in SOURCES for path in (ROOT / name).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "own"),
    [(["bin/litscale"], []), (["-m", "litscale"], ["models/__init__.py", "metrics.py", "music/__init__.py"])],
    ids=["script in an empty folder", "module beside other modules"],
)
def test_an_installed_wheel_trains_tests_and_predicts(wheel, tmp_path, start, own):
    site, work = tmp_path / "site", tmp_path / "work"
    check(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, wheel)
    for name in own:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("raise RuntimeError('this is not of litscale')")
    work.mkdir(exist_ok=True)
    command = [sys.executable, site / start[0]] if len(start) == 1 else [sys.executable, *start]
    options = {"cwd": work, "env": os.environ | {"PYTHONPATH": str(site)}}
    where = "import litscale, callbacks; print(litscale.__file__, callbacks.__file__)"
    assert check(sys.executable, "-c", where, **options).count(str(site)) == 2
    quick = ["--trainer.enable_progress_bar", "false", "--model.generation.iterations", "2", "--model.nll_passes", "1"]
    short = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.callbacks", "[]"]
    check(*command, "fit", "--config", "digits/fractal_mar.yaml", *quick, *short, **options)
    trained = ["--config", "runs/digits_mar/config.yaml", "--ckpt_path", "last", *quick]
    assert "test/bits_per_dim" in check(*command, "test", *trained, "--trainer.limit_test_batches", "1", **options)
    writer = ["--trainer.callbacks+=callbacks.PredictionWriter", "--data.predict.num_samples", "2"]
    check(*command, "predict", *trained, *writer, **options)
    assert len(list(work.glob("runs/digits_mar/predictions/*/sample_*.png"))) == 2
