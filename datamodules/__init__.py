"""Data for `lightning.Trainer`: every module yields canvases of symbols."""

from datamodules.piano_roll import PianoRollDataModule
from datamodules.requests import GenerationRequest

__all__ = ["GenerationRequest", "PianoRollDataModule"]
