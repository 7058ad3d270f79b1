"""Run folders as trainings and evaluations leave them, written by hand."""

import json
import os
import wave

import numpy as np
import pytest
import yaml
from PIL import Image

from callbacks.checkpointing.files import PREVIOUS
from callbacks.evaluation.evaluated_weights import EvaluatedWeights
from litscale.cli.evaluate.folder import Evaluated
from litscale.cli.scores import write_scores
from litscale.storage.checkpoint_record import CheckpointRecord

CONFIG = {
    "trainer": {"logger": {"class_path": "WandbLogger", "init_args": {"api_key": "abc123secret"}}},
    "model": {"class_path": "lit_models.LitFractal", "init_args": {"nll_passes": 3}},
    "data": {"class_path": "datamodules.PianoRollDataModule"},
}
LOG = """epoch,step,train/loss,val/nats_per_step
0,9,4.5,
0,19,3.25,
0,19,,2.75
1,29,nan,
1,39,2.0,2.5
"""
RESUMED = "epoch,step,train/loss,val/nats_per_step\n1,39,1.5,\n2,49,1.25,2.25\n"
EVALUATED = "epoch,step,val/nats_per_step\n0,0,99.0\n"
TABLE = """# Music evaluation (validate)

| statistic | generated | data |
|---|---|---|
| polyphony | 3.9 | **4.1** |

Distances of features.

| feature | area |
|---|---|
| pitch_count | 0.75 |
"""
ATTEMPT = {
    "status": "interrupted",
    "start": "2026-11-01T10:00:00.000+00:00",
    "end": "2026-11-01T12:30:00.000+00:00",
    "reason": "SIGTERM",
    "wall_hours": 2.5,
    "device_hours": 5.0,
    "device_count": 2,
    "command": ["litscale", "fit", "--config", "demo.yaml"],
    "code": [{"folder": "/src", "commit": "0123abcd", "new_files": [], "diff": None}],
    "packages": {"torch": "2.8"},
    "process": {"host": "node7", "id": 1, "boot": "x", "started": "1"},
}


def write_sound(path, value=0):
    """A WAV of 100 samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.full(100, value, dtype="<i2").tobytes())


def write_samples(folder, count, minute):
    """Samples as PredictionWriter leaves them."""
    folder.mkdir(parents=True)
    for i in range(count):
        stem = folder / f"sample_{i:05d}"
        image = Image.fromarray(np.full((4, 6, 3), 10 * i, dtype=np.uint8))
        image.save(f"{stem}.png")
        image.save(f"{stem}.gif")
        write_sound(f"{stem}.wav", i)
        stem.with_suffix(".mid").write_bytes(b"MThd")
        stem.with_suffix(".json").write_text(
            json.dumps({"statistics": {"polyphony": 2.5 + i, "groove_consistency": None}})
        )
    os.utime(folder, (1e9 + 60 * minute,) * 2)


@pytest.fixture
def make_run(tmp_path):
    """Write a run folder of a name, with a score of its test."""

    def make(name, score=1.5, folder=tmp_path, full=True):
        run = folder / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        for number, (text, second) in enumerate([(LOG, 1), (RESUMED, 2), (EVALUATED, 3)]):
            log = run / "logs" / f"version_{number}" / "metrics.csv"
            log.parent.mkdir(parents=True)
            log.write_text(text)
            os.utime(log, (second, second))
        if not full:
            return run
        (run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
        (run / "checkpoints" / PREVIOUS).write_bytes(b"earlier weights")  # as an interrupted run leaves it
        weights = EvaluatedWeights(CheckpointRecord(str(run / "checkpoints" / "last.ckpt"), 49, "ab"), {})
        write_scores(run, "test", weights, {"precision": "32-true", "batches": 1.0}, {"test/nats_per_step": score})
        later = {**ATTEMPT, "status": "finished", "reason": None, "device_hours": 1.25}
        (run / "manifest.json").write_text(json.dumps({"attempts": [ATTEMPT, later]}))
        (run / "music_validate.md").write_text(TABLE)
        Image.fromarray(np.zeros((5, 5, 3), dtype=np.uint8)).save(run / "timeline.png")
        write_samples(run / "samples" / "step_20", 2, minute=1)
        write_samples(run / "predictions" / "samples_seed_1", 6, minute=2)
        Image.fromarray(np.zeros((3, 3, 3), dtype=np.uint8)).save(run / "predictions" / "samples_seed_1" / "sheet.png")
        for step, value in ((20, 2.0), (40, 1.0)):
            kept = run / "evaluations" / "test" / f"step_{step}"
            kept.mkdir(parents=True)
            record = Evaluated(
                step=step,
                checkpoint=f"step_{step}.ckpt",
                checksum=None,
                weights="w",
                time="2026-11-01",
                scores={"val/fid": value},
            )
            (kept / "evaluated.json").write_text(json.dumps(vars(record)))
        (run / "evaluations" / "test" / "settings.json").write_text('{"batches": 3}')
        return run

    return make
