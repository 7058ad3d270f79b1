"""Data for `lightning.Trainer`: every module yields canvases of symbols."""

from datamodules.images.digits import DigitsDataModule
from datamodules.images.imagenet.imagenet import ImageNetDataModule
from datamodules.images.requests import ImageRequest
from datamodules.requests import GenerationRequest
from datamodules.rolls.piano_roll import PianoRollDataModule
from datamodules.tokens.tokenization import TokenizationDataModule
from datamodules.tokens.tokens import TokenDataModule

__all__ = [
    "DigitsDataModule",
    "GenerationRequest",
    "ImageNetDataModule",
    "ImageRequest",
    "PianoRollDataModule",
    "TokenDataModule",
    "TokenizationDataModule",
]
