"""Data for `lightning.Trainer`: every module yields canvases of symbols."""

from datamodules.images.data_module import ImageDataModule
from datamodules.images.digits import DigitsDataModule
from datamodules.images.fashion_mnist import FashionMNISTDataModule
from datamodules.images.imagenet.imagenet import ImageNetDataModule
from datamodules.images.requests import ImageRequest
from datamodules.images.source import ImageSource
from datamodules.rolls.data_module import PianoRollDataModule
from datamodules.rolls.jsb import JSBChorales
from datamodules.rolls.midi_folder import MidiFolder, MidiReader
from datamodules.rolls.music21_corpus import BachChorales, Music21Corpus
from datamodules.rolls.requests import GenerationRequest
from datamodules.rolls.source import RollSource
from datamodules.rolls.whole_pieces import RollEvaluation
from datamodules.tokens.data_module import TokenDataModule
from datamodules.tokens.tokenization import TokenizationDataModule

__all__ = [
    "BachChorales",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "GenerationRequest",
    "ImageDataModule",
    "ImageNetDataModule",
    "ImageRequest",
    "ImageSource",
    "JSBChorales",
    "MidiFolder",
    "MidiReader",
    "Music21Corpus",
    "PianoRollDataModule",
    "RollEvaluation",
    "RollSource",
    "TokenDataModule",
    "TokenizationDataModule",
]
