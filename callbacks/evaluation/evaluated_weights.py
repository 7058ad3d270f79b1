"""`EvaluatedWeights`: the record of the evaluated weights, which goes into all files of an evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lit_models.base import LitModule
from litscale.storage.checkpoint_record import CheckpointRecord, record_checkpoint
from litscale.storage.fingerprints import of_file


@dataclass(frozen=True)
class EvaluatedWeights:
    """The source of weights: a checkpoint, or files that the model itself was given, or neither if they are random.

    Attributes:
        record: record of the checkpoint; None without one.
        files: option of the model -> its file and the file's SHA-256; empty with a checkpoint.
    """

    record: CheckpointRecord | None
    files: dict[str, dict[str, str]]

    @property
    def metadata(self) -> dict[str, Any]:
        """``checkpoint``, ``step`` and ``sha256``, null without a checkpoint, and ``weight_files`` of the model."""
        record = self.record
        if record is None:
            return {"checkpoint": None, "step": None, "sha256": None, "weight_files": self.files}
        metadata = {"checkpoint": record.checkpoint, "step": record.step, "sha256": record.sha256}
        return {**metadata, "weight_files": self.files}

    @property
    def name(self) -> str:
        """A name for people: ``step_700``, or ``checkpoint`` if the step is unknown, ``files`` or ``untrained``."""
        if self.record is not None:
            return "checkpoint" if self.record.step is None else f"step_{self.record.step}"
        return "files" if self.files else "untrained"

    @property
    def key(self) -> str:
        """The checkpoint's SHA-256, or else a hash of the model's own files, whose paths do not matter."""
        if self.record is not None:
            return self.record.sha256
        hashes = [file["sha256"] for _, file in sorted(self.files.items())]
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def evaluated_weights(trainer: Trainer, pl_module: LightningModule) -> EvaluatedWeights:
    """Return the source of the loaded weights. Call this at once, before a running training writes a new checkpoint.

    Raises:
        FileNotFoundError: a file of the model is missing, and the message names its option; or the checkpoint is gone.
        ValueError: the checkpoint was damaged since it was loaded.
    """
    if trainer.ckpt_path is not None:
        return EvaluatedWeights(record_checkpoint(str(trainer.ckpt_path), "--ckpt_path"), {})
    options = pl_module.weight_files() if isinstance(pl_module, LitModule) else {}
    for name, path in options.items():
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{name} {path}: no such file; train the run that writes it first, or give another file as "
                f"model.init_args.{name}"
            )
    return EvaluatedWeights(None, {name: {"file": path, "sha256": of_file(path)} for name, path in options.items()})
