"""A folder of small MIDI files and a small config, as a user would have them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from litscale import music

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def midi_folder(tmp_path_factory):
    """Eight pieces of 64 steps: arpeggios that differ in their root."""
    folder = tmp_path_factory.mktemp("midi")
    form = music.RollFormat(velocity_bins=1)
    for piece in range(8):
        symbols = np.zeros((128, 64), dtype=np.uint8)
        for step in range(0, 64, 2):
            pitch = 50 + piece + (0, 4, 7)[step // 2 % 3]
            symbols[pitch, step], symbols[pitch, step + 1] = 1, 2
        music.write_midi(music.Roll(symbols, form), folder / f"piece_{piece}.mid")
    return folder


@pytest.fixture(scope="session")
def settings(midi_folder):
    """By its run folder, the content of a config that trains a small mixed model for 12 steps of 3 an epoch."""
    return lambda run: {
        "seed_everything": 3,
        "trainer": {
            "default_root_dir": str(run),
            "accelerator": "cpu",
            "max_steps": 12,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": ".", "name": "logs"},
            },
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.EMAWeightAveraging",
                    "init_args": {"decay": 0.9, "use_buffers": False},
                },
                {"class_path": "callbacks.LevelLosses"},
                {"class_path": "callbacks.GradientNorms"},
            ],
        },
        "checkpoints": {"monitor": "val/nats_per_step", "every_n_steps": 4},
        "model": {
            "class_path": "lit_models.LitFractal",
            "init_args": {
                "network": {
                    "class_path": "litscale.models.fractal.Fractal",
                    "init_args": {
                        "sizes": [[24, 16], [24, 1], [12, 1], [1, 1]],
                        "generators": ["ar", "mar", "mar"],
                        "widths": [16, 16, 16, 16],
                        "blocks": [1, 1, 1, 0],
                        "heads": [2, 2, 2, 2],
                        "velocity_bins": 1,
                        "scan": "column_major",
                        "guiding": True,
                        "proj_dropout": 0.1,
                    },
                },
                "optimization": {"lr": 0.003, "warmup_steps": 2},
                "generation": {"iterations": 2},
            },
        },
        "data": {
            "class_path": "datamodules.PianoRollDataModule",
            "init_args": {
                "folder": str(midi_folder),
                "cache_dir": str(midi_folder.parent / "cache"),
                "split_files": {"train": ["piece_[0-5].mid"], "val": ["piece_6.mid"], "test": ["piece_7.mid"]},
                "velocity_bins": 1,
                "pitch_range": [48, 71],
                "window": 16,
                "batch_size": 4,
                "samples_per_epoch": 12,
                "transpose": 2,
            },
        },
    }


@pytest.fixture
def config(tmp_path, settings):
    """Path of a config that trains a small mixed model on the folder for 12 steps of 3 an epoch."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path / "run")))
    return path


@pytest.fixture
def litscale(tmp_path):
    """Run the command line in a process of its own; returns the finished process."""

    def run(*arguments, check=True, timeout=300, **options):
        command = [sys.executable, "-m", "litscale", *map(str, arguments)]
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, **options)
        if check:
            assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
        return finished

    return run
