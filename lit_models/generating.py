"""`GeneratingModule`: a `LitModule` that also generates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any

from torch import Tensor

from lit_models.base import LitModule
from lit_models.batches import Batch, Prediction
from litscale.models.fractal import decoding_summary


class GeneratingModule(LitModule, ABC):
    """A module that generates canvases.

    Attributes:
        generation: the options of generation, a frozen dataclass.
        record_frames: whether predictions hold the canvas after each step, for animations.
        sampling_threads: number of CPU threads for generation, see `lit_models.sampling_threads`.
    """

    generation: Any
    record_frames: bool = False
    sampling_threads: int | None = None

    def described_generation(self) -> dict[str, Any]:
        """Return the options of generation, for files that record how samples were made."""
        return asdict(self.generation)

    @abstractmethod
    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        canvas: Tensor | None = None,
        known: Tensor | None = None,
        seed: int | None = None,
        index: Tensor | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases.

        Args:
            label: classes, int64 ``[B]``; None generates without a class.
            batch_size: B, if neither label nor canvas gives it.
            canvas: symbols, uint8 ``[B, C, H, W]``, whose known cells are kept.
            known: which cells of the canvas are known, bool ``[B, C, H, W]``; None for no cell.
            seed: the seed of the noise; None takes one from torch's generator.
            index: the number of each sample, int64 ``[B]``, by which its noise is keyed beside the seed; 0, 1, ... if
                it is None. A sample of a seed and a number is the same in every batch.
            frames: a list to which the canvas and the mask of its finished cells are appended after each step, on the
                CPU.

        Returns:
            Symbols, uint8 ``[B, C, H, W]``, on the device of the module.
        """

    def decoding_counts(self) -> dict[str, float]:
        """Return the counts of parallel decoding in the last call of :meth:`generate`; empty if there are none.

        They are those of `litscale.models.fractal.GenerationReport`.
        """
        return {}

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Generate the canvases of a batch of requests.

        The batch has ``canvas``, ``known``, ``index``, ``seed`` and possibly ``label``.
        """
        frames: list[tuple[Tensor, Tensor]] | None = [] if self.record_frames else None
        label, canvas, known = batch.get("label"), batch["canvas"], batch["known"]
        seed, index = batch["seed"], batch["index"]
        return {
            "canvas": self.generate(label, canvas=canvas, known=known, seed=seed, index=index, frames=frames),
            "known": known,
            "index": index,
            "label": label,
            "settings": self.described_generation() | {"seed": seed},
            "decoding": decoding_summary(self.decoding_counts()),
            "frames": frames,
        }
