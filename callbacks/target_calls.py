"""`TargetCalls`: calls, speed and quality of a decoder of VAR, compared with the target alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks.evaluation.quality_reference import QualityReference
from callbacks.reporting.decode_pictures import timeline
from callbacks.reporting.decode_report import decode_report
from callbacks.reporting.figures import pixels, write_picture
from callbacks.reporting.loggers import send_histogram, send_pictures, send_table
from callbacks.reporting.result_table import Report
from callbacks.reporting.trainer_state import run_folder, stage_of
from datamodules.base import offered
from lit_models.contracts import DecoderComparison
from lit_models.speculative.comparison import Comparison, no_totals, rates
from litscale.metrics import FrechetDistance
from litscale.metrics.features import checked_size, extract
from litscale.models.sdvar import DecodeReport

COUNTS = ("images", "target_calls", "draft_calls", "accepted_scales")


class TargetCalls(Callback):
    """Measures how many calls of the target a decoder takes, how fast it is, and what the images lose.

    For modules whose validation and test steps return a `Comparison`, as `LitSDVAR`'s do. Logs,
    over all images and all devices,

    - the sums ``sdvar/images``, ``sdvar/target_calls``, ``sdvar/draft_calls`` and ``sdvar/accepted_scales``, where a
      batch that goes through a network counts once for each of its images,
    - what follows from sums: ``sdvar/target_calls_per_image``, ``sdvar/draft_calls_per_image``,
      ``sdvar/target_tokens_per_image`` and ``sdvar/draft_tokens_per_image`` (computed, with those of guidance),
      ``sdvar/gflops_per_image`` (of both networks),
      ``sdvar/accepted_scales_per_call``, ``sdvar/ms_per_image``, ``sdvar/target_only_ms_per_image``, ``sdvar/speedup``
      (the ratio of these two), ``sdvar/token_agreement`` with the target alone, ``sdvar/pixel_difference`` (mean,
      absolute, pixels in 0..1) and ``sdvar/acceptance/scale_<k>``, also as a histogram ``sdvar/accepted`` over the
      scales,
    - with an extractor ``sdvar/fid`` of the decoder, ``sdvar/target_fid`` of the target alone for the same labels and
      noise, and ``sdvar/fid_difference``. As many images as the data has make a FID that compares the two, not one to
      publish.

    The timeline of rank zero's first batch and a table go to the loggers, the timeline also to the run's folder as
    ``timeline.png``. Outside of ``fit`` both go there as ``decode_validate.png``, ``.json`` and ``.md``
    (``decode_test...``).
    """

    def __init__(
        self, features: nn.Module | None = None, reference: str | None = None, cache_dir: str | None = None
    ) -> None:
        """Check the options.

        Args:
            features: the extractor of FID, any `litscale.metrics.features.FeatureExtractor`; null = no FID.
            reference: file of the images to compare with, as for `GenerationQuality`; null = the evaluated data.
            cache_dir: folder for cached features of the data; null = as for `PianoRollDataModule`.

        Raises:
            ValueError: the extractor has no num_features.
        """
        super().__init__()
        if features is not None:
            checked_size(features)
        self.features = features
        self.reference = reference
        self.cache_dir = cache_dir
        self._real: QualityReference | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the module, and forget the reference of an earlier run.

        Raises:
            MisconfigurationException: the module does not compare decoders.
        """
        if stage != "predict" and not offered(pl_module, DecoderComparison):
            raise MisconfigurationException(
                f"TargetCalls needs a module that compares decoders, as LitSDVAR does, not {type(pl_module).__name__}; "
                "remove the callback"
            )
        self._real = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the sums, and prepare FID and its reference if there is an extractor."""
        self._decoders = cast(DecoderComparison, pl_module)
        self._sums = no_totals(self._decoders.scales)
        self._first: DecodeReport | None = None
        if self.features is None:
            return
        self.features.to(pl_module.device).eval()
        size = checked_size(self.features)
        self._scores = {name: FrechetDistance(size).to(pl_module.device) for name in ("fid", "target_fid")}
        self._learning = self._real is None and not trainer.sanity_checking  # the data are the same each time
        if self._learning:
            self._real = QualityReference(self.features, self.reference, self.cache_dir, batch_size=64)
            self._real.begin(trainer, pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the `Comparison` of a batch to the sums, unless the module skipped the batch.

        Raises:
            ValueError: FID is requested, and the batch has no images to compare with.
        """
        if self._real is not None and self._learning and self.reference is None:
            if "canvas" not in batch:
                raise ValueError("TargetCalls.features: the data has no canvas to compare with; give a reference")
            self._real.take(trainer, batch["canvas"])
        comparison = cast(Comparison | None, outputs)
        if comparison is None:
            return
        for name, value in comparison.totals().items():
            self._sums[name] += value
        if self._first is None:
            self._first = comparison.report
        if self.features is not None:
            for name, canvas in (("fid", comparison.canvas), ("target_fid", comparison.target_canvas)):
                self._scores[name].update(extract(self.features, canvas)[0])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the numbers; all ranks call this together."""
        if trainer.sanity_checking:
            return
        own = torch.tensor(list(self._sums.values()), dtype=torch.float64, device=pl_module.device)
        summed = trainer.strategy.reduce(own, reduce_op="sum").tolist()
        sums = dict(zip(self._sums, summed, strict=True))
        self._numbers = {name: sums[name] for name in COUNTS} | rates(sums)
        if self._real is not None:
            if self._learning:
                self._real.end(trainer)
            for name, score in self._scores.items():
                score.reference = self._real.statistics
                self._numbers[name] = float(score.compute())
            self._numbers["fid_difference"] = self._numbers["fid"] - self._numbers["target_fid"]
        # Equal on all ranks already; `sync_dist` keeps Lightning from warning of each.
        numbers = {f"sdvar/{name}": torch.tensor(value) for name, value in self._numbers.items()}
        pl_module.log_dict(numbers, sync_dist=True, batch_size=1)
        self._accepted = [sums[f"accepted/scale_{k}"] for k in range(self._decoders.scales)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send pictures and table to the loggers, and outside of ``fit`` print and write the table; on rank zero."""
        if trainer.sanity_checking or not trainer.is_global_zero or self._first is None:
            return
        stage, _ = stage_of(trainer)
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        figure = timeline(self._first)
        fitting = trainer.state.fn == TrainerFn.FITTING
        picture = write_picture(figure, folder / ("timeline.png" if fitting else f"decode_{stage}.png"))
        send_pictures(trainer, "sdvar/timeline", [pixels(figure)])
        send_histogram(trainer, "sdvar/accepted", self._accepted)
        report = self._report(stage)
        head, *lines = report.tables[0].lines()
        send_table(trainer, "sdvar/decoders", head, lines)
        if fitting:
            return
        report.show()
        print("Written to " + ", ".join(map(str, [*report.write(folder), picture])))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def _report(self, stage: str) -> Report:
        """Return the report on the decoder and the target alone."""
        own = dict(self._numbers)
        alone = {"target_calls_per_image": float(self._decoders.scales), "draft_calls_per_image": 0.0, "speedup": 1.0}
        alone["ms_per_image"] = own["target_only_ms_per_image"]
        if "target_fid" in own:
            alone["fid"] = own["target_fid"]
            own["fid_change"] = own["fid_difference"] / own["target_fid"]
        caption = f"{own['images']:.0f} images ({stage})"
        settings = asdict(self._decoders.generation) | {"seed": self._decoders.seed}
        rows = {"target only": alone, str(self._decoders.decoder): own}
        return decode_report(f"decode_{stage}", caption, settings, rows)
