"""What training, evaluation and the command line need of a network: `Fractal` is one, and yours may be another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from litscale.models.codec import Codec
from litscale.models.fractal.terms import FractalOutput


class CanvasNetwork(nn.Module, ABC):
    """A network that gives canvases of symbols a loss and a likelihood.

    It does not know how it is sampled: a function does that, see :func:`litscale.models.fractal.generate`.

    Args:
        codec: what its symbols mean: channels and alphabet of its canvases.
        sizes: (rows, columns) of the canvas, then of the patches of each level, if it has levels.
        num_classes: number of class labels; 0 for a network without classes.
        periods: lengths in columns of which the network is told the phase; with any, :meth:`forward` and
            :meth:`nll_of_passes` are also given ``start``, number of each canvas' first column within its piece, int64
            ``[B]``, or None.
    """

    def __init__(
        self, codec: Codec, sizes: Sequence[tuple[int, int]], num_classes: int = 0, periods: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.codec = codec
        self.sizes = [(int(height), int(width)) for height, width in sizes]
        self.num_classes = num_classes
        self.periods = tuple(periods)

    @property
    def exact_likelihood(self) -> bool:
        """Whether the likelihood is exact; otherwise it is a bound that varies from pass to pass."""
        return True

    @abstractmethod
    def forward(self, canvas: Tensor, label: Tensor | None = None, with_entropy: bool = False) -> FractalOutput:
        """Compute the training loss.

        Args:
            canvas: symbols, uint8 ``[B, C, H, W]``.
            label: int64 ``[B]``, -1 for no class; none for a batch without classes.
            with_entropy: also measure the entropy of the predictions, if the network can.
        """

    @abstractmethod
    def nll_of_passes(
        self, canvas: Tensor, label: Tensor | None = None, passes: int = 1, *, seed: int | None = None
    ) -> Tensor:
        """Compute the negative log-likelihood in nats per canvas, without dropout, float32 ``[passes, B]``.

        Args:
            canvas: symbols, uint8 ``[B, C, H, W]``.
            label: int64 ``[B]``, -1 or none for no class.
            passes: number of random passes; those of an exact likelihood are equal.
            seed: with it, a canvas has the same values in every batch and every process.
        """

    def nll(self, canvas: Tensor, label: Tensor | None = None, passes: int = 1, **options: Any) -> Tensor:
        """Average :meth:`nll_of_passes` over the passes, float32 ``[B]``; the arguments are the same."""
        return self.nll_of_passes(canvas, label, passes, **options).mean(0)

    def nll_of_columns(
        self, canvas: Tensor, label: Tensor | None = None, passes: int = 1, *, seed: int | None = None
    ) -> Tensor:
        """Compute the negative log-likelihood in nats of each column given earlier ones, float64 ``[passes, B, W]``.

        Dropout is off; the arguments are those of :meth:`nll_of_passes`. Evaluation of whole pieces
        (``evaluation.stride``) needs it.

        Raises:
            ValueError: the network does not override this method, as it cannot compute it.
        """
        raise ValueError(f"{type(self).__name__} has no nll_of_columns: set the data's evaluation.stride to null")

    def parameters_by_level(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters in the groups whose gradients are reported, by the names of the groups."""
        return {"network": list(self.parameters())}
