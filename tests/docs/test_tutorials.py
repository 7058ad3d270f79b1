"""The tutorials, as a reader types them: each block in its turn, with a small model in place of the page's own."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_runs import forked, status_of
from inception_weights import write_random_weights
from PIL import Image
from rank_runs import run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SHORT = {"max_epochs": 1, "max_steps": 2, "limit_train_batches": 2, "enable_progress_bar": False}
SMALL_ROLLS = {
    "trainer": {
        **SHORT,
        "limit_val_batches": 1,
        "check_val_every_n_epoch": 1,
        "callbacks": [
            {"class_path": "callbacks.MusicEvaluation", "init_args": {"num_samples": 2}},
            {"class_path": "callbacks.PredictionWriter", "init_args": {"gif": True, "wav": True}},
        ],
    },
    "model": {
        "init_args": {
            "network": {
                "init_args": {
                    "sizes": [[48, 16], [48, 1], [12, 1], [1, 1]],
                    "widths": [16] * 4,
                    "blocks": [1, 1, 1, 0],
                    "heads": [2, 2, 2, 1],
                }
            }
        }
    },
    "data": {"init_args": {"window": 16, "batch_size": 2, "cache_dir": "cache", "predict": {"length": 32}}},
}
SMALL_IMAGES = {
    "trainer": {**SHORT, "check_val_every_n_epoch": 1},
    "model": {
        "init_args": {
            "network": {"init_args": {"widths": [16] * 3, "blocks": [1, 1, 0], "heads": [2] * 3}},
            "generation": {"iterations": 1},
        }
    },
    "data": {"init_args": {"batch_size": 2, "predict": {"num_samples": 2}}},
}


def blocks(page):
    """Language and text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(page, folder, small):
    """Do what a page says; its trainings take the small config over their own."""
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    for language, text in blocks(page):
        if language == "yaml":
            path = folder / re.match(r"# (\S+)\n", text)[1]
            if not path.exists():
                path.write_text(text)
        if language == "python":
            (folder / "program.py").write_text(text)
            run(folder / "program.py", folder)
        for line in text.splitlines() if language == "bash" else []:
            words = shlex.split(line)[1:]
            if words[0] == "fit":
                after = max(i + 2 for i, word in enumerate(words) if word == "--config")
                words[after:after] = ["--config", "small.yaml"]
            assert status_of(forked(*words), seconds=900) == 0, line


@pytest.mark.slow
def test_music(folder):
    songs = sorted((ROOT / "tests" / "data" / "pop909").glob("*.mid"))
    (folder / "midi").mkdir()
    for i in range(24):  # enough names for each split to get one
        shutil.copy(songs[i % len(songs)], folder / "midi" / f"song_{i}.mid")
    shutil.copy(songs[0], folder / "song.mid")
    follow("tutorial_music.md", folder, SMALL_ROLLS)
    assert len(list((folder / "runs" / "mine" / "predictions").iterdir())) == 3  # new, continued, rewritten
    assert len(list((folder / "runs" / "mine" / "wandb").glob("offline-run-*"))) >= 1
    assert (folder / "both.html").is_file()
    assert (folder / "new.mid").is_file()


@pytest.mark.slow
def test_images(folder):
    random = np.random.default_rng(0)
    for split, first in (("train", 1), ("val", 901)):
        for name in ("cats", "dogs"):
            (folder / "pictures" / split / name).mkdir(parents=True)
            for number in range(first, first + 4):
                image = Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
                image.save(folder / "pictures" / split / name / f"{number}.png")
    (text,) = (text for _, text in blocks("tutorial_images.md") if text.startswith("# fid.yaml"))
    fid = yaml.safe_load(text)
    (quality,) = fid["trainer"]["callbacks+"]
    quality["init_args"] |= {"num_samples": 4, "batch_size": 2, "cache_dir": "cache"}
    (folder / "fid.yaml").write_text(yaml.safe_dump(fid))
    write_random_weights(folder / quality["init_args"]["features"]["init_args"]["weights"])
    follow("tutorial_images.md", folder, SMALL_IMAGES)
    assert len(list((folder / "runs" / "pictures" / "predictions").iterdir())) == 3  # all, of one class, repainted
    assert (folder / "runs" / "pictures" / "report.html").is_file()
    assert "fid" in (folder / "runs" / "pictures" / "quality_validate.md").read_text()
