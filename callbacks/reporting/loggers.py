"""Sends numbers, pictures, tables, sounds and animations to the loggers of a trainer."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger


def send_numbers(trainer: Trainer, numbers: Mapping[str, float]) -> None:
    """Send numbers that only rank zero has; other numbers go through ``pl_module.log``, so that callbacks see them."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(numbers), step=trainer.global_step)


def send_pictures(trainer: Trainer, key: str, pictures: Sequence[np.ndarray]) -> None:
    """Send pictures to W&B (a panel) and TensorBoard (``<key>/0``, ...).

    Args:
        trainer: the trainer on rank zero, whose loggers get them.
        key: name on dashboards.
        pictures: uint8 RGB ``[height, width, 3]`` each.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            captions = [str(i) for i in range(len(pictures))]
            logger.log_image(key, list(pictures), step=trainer.global_step, caption=captions)
        elif isinstance(logger, TensorBoardLogger):
            for i, picture in enumerate(pictures):
                logger.experiment.add_image(f"{key}/{i}", picture, trainer.global_step, dataformats="HWC")


def send_sounds(trainer: Trainer, key: str, files: Sequence[Path]) -> None:
    """Send WAV files (one channel, 16 bits) to W&B and TensorBoard, as ``<key>/0``, ...

    Args:
        trainer: the trainer on rank zero, whose loggers get them.
        key: name on dashboards.
        files: the WAV files.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            # Not `log_audio`: W&B takes lists of sounds only with the package soundfile, single files without.
            sounds = {f"{key}/{i}": wandb.Audio(str(file)) for i, file in enumerate(files)}
            logger.log_metrics(sounds, step=trainer.global_step)  # type: ignore[arg-type]
        elif isinstance(logger, TensorBoardLogger):
            for i, file in enumerate(files):
                sound, rate = _read_wav(file)
                logger.experiment.add_audio(f"{key}/{i}", sound[None], trainer.global_step, sample_rate=rate)


def send_animations(trainer: Trainer, key: str, files: Sequence[Path]) -> None:
    """Send GIFs to W&B; TensorBoard would have to encode them again and gets none.

    Args:
        trainer: the trainer on rank zero, whose loggers get them.
        key: name on dashboards.
        files: the GIFs.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            paths, formats = [str(file) for file in files], ["gif"] * len(files)
            logger.log_video(key, paths, step=trainer.global_step, format=formats)


def send_histogram(trainer: Trainer, key: str, counts: Sequence[float]) -> None:
    """Send counts of the integers 0, 1, ... to W&B and TensorBoard, as a histogram.

    Args:
        trainer: the trainer on rank zero, whose loggers get it.
        key: name on dashboards.
        counts: how often each integer occurred.
    """
    edges = np.arange(len(counts) + 1) - 0.5
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            made = wandb.Histogram(np_histogram=(np.asarray(counts), edges))
            logger.log_metrics({key: made}, step=trainer.global_step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            values = np.arange(len(counts))
            logger.experiment.add_histogram_raw(
                key,
                min=0.0,
                max=float(len(counts) - 1),
                num=float(np.sum(counts)),
                sum=float(np.dot(values, counts)),
                sum_squares=float(np.dot(values**2, counts)),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=list(counts),
                global_step=trainer.global_step,
            )


def send_table(trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Send a table to W&B, and to TensorBoard as text in Markdown.

    Args:
        trainer: the trainer on rank zero, whose loggers get it.
        key: name on dashboards.
        columns: headings.
        rows: cells.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
            logger.experiment.add_text(key, text, trainer.global_step)


def _read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Read a 16-bit WAV file with one channel; return float32 ``[n]`` in [-1, 1] and its rate in Hz."""
    with wave.open(str(path)) as file:
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return values.astype(np.float32) / 32767, file.getframerate()
