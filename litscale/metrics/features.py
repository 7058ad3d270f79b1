"""Feature extractors, in whose features images are compared: their interface, those of images and those of rolls."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from litscale.music import Roll, RollFormat, statistics
from litscale.music.statistics import NAMES
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.fingerprints import of_tensors

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
RELEASE = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"
MUSIC_SCALES = {
    "note_density": 1.0,
    "polyphony": 0.5,
    "pitch_range": 6.0,
    "pitch_classes_used": 1.0,
    "pitch_class_entropy": 0.2,
    "scale_consistency": 0.05,
    "groove_consistency": 0.1,
    "empty_beat_rate": 0.05,
    "mean_velocity": 12.0,
}


@runtime_checkable
class FeatureExtractor(Protocol):
    """What a module must offer to compare images (or rolls) by its features.

    If it also gives logits, and these are of the data's own classes, it has an int ``num_classes`` as well.

    Attributes:
        num_features: D.
    """

    num_features: int

    def __call__(self, canvases: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return features of canvases, or a pair of features and logits, of which Inception Scores are made.

        Args:
            canvases: uint8 ``[B, C, H, W]``.

        Returns:
            Float ``[B, D]``, or also ``[B, num_classes]``.
        """


class InceptionFeatures(nn.Module):
    """The Inception network of 2015 that FID is defined by: that of torch-fidelity, with the resize of TensorFlow.

    It gives 2048 features, and 1008 logits without their bias. Nothing is downloaded.

    Args:
        weights: The weights file of torch-fidelity; null takes the one that torch.hub has stored, see
            `default_weights`.

    Raises:
        FileNotFoundError: there is no such file; the message says where to get it.
        ValueError: the file is damaged, holds other weights or could run code.
    """

    num_features = 2048

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = default_weights() if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"no weights of Inception at {path}: get {WEIGHTS} from {RELEASE} and put it there, or give its path "
                "as InceptionFeatures.weights"
            )
        state = read_checkpoint(path, "InceptionFeatures.weights")
        # torch-fidelity reads its file as a pickle, which may run code; so it is given the checked weights in memory.
        checked = io.BytesIO()
        torch.save(state, checked)
        checked.seek(0)
        try:
            self.network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], checked)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} does not hold the weights of torch-fidelity's Inception ({WEIGHTS}): {error}"
            ) from error

    def train(self, mode: bool = True) -> InceptionFeatures:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits.

        Args:
            images: uint8 ``[B, C, H, W]`` of any size, RGB (C = 3) or grey (C = 1).

        Returns:
            Features, float32 ``[B, 2048]``, and logits, float32 ``[B, 1008]``.
        """
        return self.network(images.expand(-1, 3, -1, -1))


def default_weights() -> Path:
    """Return where torch.hub stores the weights, ``$TORCH_HOME/hub/checkpoints``, by default in ``~/.cache/torch``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


class MusicFeatures(nn.Module):
    """The statistics of a roll, see `litscale.music.statistics`, each divided by a fixed scale.

    The scales approximate the standard deviations over windows of 64 sixteenths of pop songs and chorales. They do not
    depend on the reference, so that distances to several references are comparable, and so that a statistic that is
    constant in a reference, such as the velocity of the chorales, is not divided by 0. Statistics that a roll does not
    define are 0, which puts silent samples far from music: a silent roll defines only the note density and the number
    of pitch classes, and a ``binary`` roll defines no velocity.

    Args:
        form: The format of the rolls, which says what their symbols mean.
        beats_per_bar: Number of quarter notes in a bar, for the groove; None takes that of ``form``.
    """

    num_features = len(NAMES)
    scales: Tensor

    def __init__(self, form: RollFormat, beats_per_bar: float | None = None) -> None:
        super().__init__()
        self.form = form.with_meter(beats_per_bar)
        self.register_buffer("scales", torch.tensor([MUSIC_SCALES[name] for name in NAMES]))

    def extra_repr(self) -> str:
        """Return the options, which `identity` reads."""
        return str(self.form)

    def forward(self, canvases: Tensor) -> Tensor:
        """Return the scaled statistics.

        Args:
            canvases: Symbols, uint8 ``[B, 1, H, W]``.

        Returns:
            float32 ``[B, 9]``, in the order of `litscale.music.statistics.NAMES`.
        """
        rows = [statistics(Roll(roll, self.form)) for roll in canvases[:, 0].cpu().numpy()]
        table = torch.tensor([[row[name] for name in NAMES] for row in rows], device=self.scales.device)
        return table.view(-1, self.num_features).nan_to_num(0.0) / self.scales


def checked_size(extractor: nn.Module) -> int:
    """Return the number of features of a `FeatureExtractor`.

    Raises:
        ValueError: the module does not say it.
    """
    size = extractor.num_features if isinstance(extractor, FeatureExtractor) else None
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f"{type(extractor).__name__} has no int attribute num_features, the number of features that it gives of an "
            "image: add it"
        )
    return size


@torch.no_grad()
def extract(extractor: nn.Module, canvases: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return features, float ``[B, num_features]``, and logits, float ``[B, K]``, or None if there are none.

    Args:
        extractor: a `FeatureExtractor`.
        canvases: uint8 ``[B, C, H, W]``.

    Raises:
        ValueError: the shape of the features contradicts ``num_features``.
    """
    given = extractor(canvases)
    features, logits = given if isinstance(given, tuple) else (given, None)
    expected = (len(canvases), checked_size(extractor))
    if features.shape != expected:
        raise ValueError(
            f"{type(extractor).__name__} gave features of shape {list(features.shape)}, not {list(expected)}: images "
            "and num_features"
        )
    return features, logits


def identity(extractor: nn.Module) -> str:
    """Return a hash of the structure, the printed options and the weights of an extractor, which fix its features."""
    return of_tensors(extractor.state_dict(), f"{type(extractor).__qualname__} {extractor}")
