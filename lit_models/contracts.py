"""What callbacks ask of modules beside Lightning's own hooks; any module that has the methods will do.

`datamodules.base.offered` and `datamodules.base.required` say whether it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter

from lit_models.speculative.comparison import Comparison
from litscale.models.fractal import LevelAttention
from litscale.models.sdvar import Decoder
from litscale.models.var import VARGeneration


class Generates(Protocol):
    """A module that generates canvases."""

    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        seed: int | None = None,
        index: Tensor | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases, uint8 ``[B, C, H, W]``; see `lit_models.generating.GeneratingModule.generate`."""


class ReadsLabels(Protocol):
    """A module that can tell whether it reads the labels of batches."""

    def label_classes(self) -> int:
        """Return the number of classes among which labels must be; 0 for a module that reads no labels."""


class GenerationOptions(Protocol):
    """A module whose way of generating can be changed."""

    @property
    def generation(self) -> Any:
        """The options of generation, a frozen dataclass."""

    def described_generation(self) -> Mapping[str, Any]:
        """Return all that samples depend on beside weights and requests, for files and caches that record it."""


class BatchCounts(Protocol):
    """A module that can tell how much a training batch holds."""

    def batch_counts(self, batch: Any) -> Mapping[str, int]:
        """Count ``samples``, and ``tokens`` and ``cells`` if the batch has them, from shapes, never from the device."""


class CountsDecoding(Protocol):
    """A module that counts what parallel decoding takes."""

    def decoding_counts(self) -> Mapping[str, float]:
        """Return the counts of the last ``generate``; see `litscale.models.fractal.GenerationReport.counts`."""


class LevelParameters(Protocol):
    """A module of several levels."""

    def parameters_by_level(self) -> Mapping[str, list[Parameter]]:
        """Return the parameters of each level, by its name."""


class AttentionReports(Protocol):
    """A module that can measure entropy and reach of its attention."""

    def attention_report(self, canvas: Tensor, label: Tensor | None = None) -> Mapping[str, LevelAttention]:
        """Measure entropy and reach of attention on canvases, uint8 ``[B, C, H, W]``, by the level's name."""


class DecoderComparison(Protocol):
    """A module that decodes in several ways."""

    @property
    def scales(self) -> int:
        """Number of scales of an image."""

    @property
    def decoder(self) -> Decoder:
        """The decoder that is compared with the target alone."""

    @property
    def generation(self) -> VARGeneration:
        """The options of generation for both."""

    @property
    def seed(self) -> int:
        """The seed of the noise."""

    def compare(self, labels: Tensor, index: Tensor, seed: int) -> Comparison:
        """Compare the decoder with the target alone on labels, int64 ``[B]``; see `lit_models.LitSDVAR.compare`."""


class TokenMaker(Protocol):
    """A tokenizer's module."""

    def token_metadata(self) -> Mapping[str, Any]:
        """Return what a cache records of the tokenizer: ``tokenizer`` (its checksum), ``patch_nums`` and ``vocab``."""
