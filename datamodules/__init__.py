"""Data for `lightning.Trainer`: every module yields canvases of symbols."""

from datamodules.digits import DigitsDataModule
from datamodules.image_requests import ImageRequest
from datamodules.imagenet import ImageNetDataModule
from datamodules.piano_roll import PianoRollDataModule
from datamodules.requests import GenerationRequest
from datamodules.tokenization import TokenizationDataModule
from datamodules.tokens import TokenDataModule

__all__ = [
    "DigitsDataModule",
    "GenerationRequest",
    "ImageNetDataModule",
    "ImageRequest",
    "PianoRollDataModule",
    "TokenDataModule",
    "TokenizationDataModule",
]
