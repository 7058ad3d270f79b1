"""Every command of README and docs runs, with a small model in place of the config's own."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = {
    "trainer": {
        "max_epochs": 1,
        "max_steps": 2,
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "limit_test_batches": 1,
        "enable_progress_bar": False,
        "callbacks": [
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}},
            {"class_path": "callbacks.MusicEvaluation", "init_args": {"num_samples": 1}},
            {"class_path": "callbacks.PredictionWriter"},
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


def commands(page):
    """The ``litscale`` commands of a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("litscale ")]


def test_pages_show_commands_and_existing_files():
    assert sum(len(commands(page)) for page in PAGES) >= 12
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for name in re.findall(r"configs/[\w/]+\.yaml", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


@pytest.mark.slow
def test_commands_run(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "midi").mkdir()
    songs = sorted((ROOT / "tests" / "data" / "pop909").glob("*.mid"))
    for i in range(24):  # enough names for each split to get one
        shutil.copy(songs[i % len(songs)], tmp_path / "midi" / f"song_{i}.mid")
    shutil.copy(songs[0], tmp_path / "song.mid")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    # the first fit makes the run that the other commands speak of
    lines = sorted({line for page in PAGES for line in commands(page)}, key=lambda line: "--ckpt_path" in line)
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "fit":
            words += ["--config", "small.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
            if "wandb.yaml" in line:
                words += ["--trainer.logger.init_args.offline", "true"]
            if "--ckpt_path" in words:
                words += ["--trainer.max_steps", "3", "--trainer.max_epochs", "2"]
        if "song.mid" in words:
            words += ["--data.predict.length", "80"]  # the small model's window is shorter than what is given
        run = subprocess.run(
            [sys.executable, "-m", "litscale", *words], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert run.returncode == 0, f"{line}\n{run.stdout[-1500:]}\n{run.stderr[-3000:]}"
