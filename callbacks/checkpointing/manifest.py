"""The manifest of a training: it records the beginning and the end, and is sent to Weights & Biases."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections import Counter
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

import litscale
from callbacks.checkpointing.interruption import EXIT_STATUS, NAMES, Action
from callbacks.reporting.trainer_state import gathered, resumed_checkpoint
from litscale.storage.manifest import FAILED, FINISHED, INTERRUPTED, MANIFEST, ManifestWriter
from litscale.storage.provenance import code_of, describe_run
from litscale.storage.secrets import mask_text

MOST_REASON = 2000  # characters
_SIGNALS = {status: NAMES[action] for action, status in EXIT_STATUS.items()}


def begin_manifest(trainer: Trainer, folder: Path) -> ManifestWriter | None:
    """Add an attempt to the manifest of a run folder; all processes must call this together.

    Args:
        trainer: trainer of the run.
        folder: the run folder, which rank zero owns.

    Returns:
        On rank zero the writer that will record the end of the attempt; None elsewhere.

    Raises:
        OSError: the manifest cannot be written.
    """
    # 1. what each process runs on
    places = gathered(trainer, (socket.gethostname(), _device_name(trainer.strategy.root_device)))
    if not trainer.is_global_zero:
        return None
    # 2. what runs
    recorded = describe_run() | {
        "hosts": list(dict.fromkeys(host for host, _ in places)),
        "devices": dict(Counter(device for _, device in places)),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "strategy": type(trainer.strategy).__name__,
        "precision": trainer.precision,
        "resumed_from": resumed_checkpoint(trainer),
    }
    code = code_of(Path.cwd(), *map(Path, litscale.__path__))
    return ManifestWriter(folder, recorded, code, trainer.world_size)


def send_manifest(trainer: Trainer, manifest: ManifestWriter) -> None:
    """Send the record of this attempt to Weights & Biases as ``manifest`` of the config, and the file at the end."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update({"manifest": manifest.attempt}, allow_val_change=True)
            logger.experiment.save(manifest.folder / MANIFEST, base_path=manifest.folder, policy="end")


def end_manifest(trainer: Trainer, manifest: ManifestWriter, exception: BaseException | None) -> None:
    """Record how an attempt ended; if the manifest cannot be written, print a message instead of an error.

    Args:
        trainer: trainer of the run.
        manifest: manifest of the attempt.
        exception: the exception that ended the attempt early, if there was one.
    """
    try:
        manifest.end(*outcome(exception), step=trainer.global_step)
    except OSError as error:
        print(f"The manifest could not record how the run ended: {error}", file=sys.stderr)


def outcome(exception: BaseException | None) -> tuple[str, str | None]:
    """Return the status and the reason of an attempt that ended with an exception, or without one."""
    if exception is None:
        return FINISHED, None
    if isinstance(exception, KeyboardInterrupt):
        return INTERRUPTED, NAMES[Action.INTERRUPT]
    if isinstance(exception, SystemExit) and exception.code in _SIGNALS:
        return INTERRUPTED, _SIGNALS[exception.code]
    return FAILED, mask_text(f"{type(exception).__name__}: {exception}")[:MOST_REASON]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {os.cpu_count()} cores)"
