"""`GenerationQuality`: FID, KID, precision, recall and related scores of generated images or rolls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from callbacks.evaluation.quality_reference import QualityReference
from callbacks.evaluation.sample_evaluation import SampleEvaluation, without_overlap
from callbacks.evaluation.sample_store import SampleStore, write_npz, write_pngs
from callbacks.reporting.result_table import Column, Report, ResultTable
from callbacks.reporting.trainer_state import checkpoint_of, run_folder, stage_of
from datamodules.base import (
    CanvasData,
    RenderedData,
    TokenData,
    class_count,
    class_names_of,
    data_of,
    offered,
    required,
)
from lit_models.contracts import Generates, GenerationOptions
from litscale.metrics import (
    FrechetDistance,
    InceptionFeatures,
    InceptionScore,
    KernelDistance,
    MusicFeatures,
    PrecisionRecall,
)
from litscale.metrics.features import checked_size, extract, identity
from litscale.music import RollRenderer

LEAST_SAMPLES = 4  # precision and recall look at three neighbours


class GenerationQuality(SampleEvaluation):
    """Generates images (or rolls) and measures how close they are to real ones in the features of an extractor.

    Logs, over all ranks, ``val/fid``, ``val/kid``, ``val/precision`` and ``val/recall`` (``test/...`` in a test). An
    extractor that gives logits adds ``val/inception_score``. One that knows the data's classes adds
    ``val/class_accuracy``, the share of samples that it recognises as their class; where classes have names, the report
    has this share for each of them. Of rolls the features are by default the statistics of
    `litscale.metrics.MusicFeatures`, of images `litscale.metrics.InceptionFeatures`. If samples are decoded in
    parallel, ``val/decoding/passes_per_patch`` and the like are logged, of newly generated samples only, see
    `litscale.models.fractal.decoding_summary`.

    The reference is a file, or the data of the current validation (or test). Their features are extracted once and kept
    in the cache, if all of them went through (``limit_val_batches`` at 1.0). Against a file of mean and covariance
    alone, KID, precision and recall are not defined and left out. To evaluate every n steps, set the trainer's
    ``val_check_interval``; to do nothing else in a test, give a reference and set ``limit_test_batches`` to 1.

    Samples are the same on any number of devices, and of equally many for each class. Outside of ``fit`` the outcome is
    also printed as a table and written to the run's folder as ``quality_validate.json`` and ``.md``
    (``quality_test...``). There, batches are kept in ``quality_batches`` of the run's folder until the end. An
    evaluation that was interrupted resumes with them if weights and settings are the same. All devices must see that
    folder.
    """

    def __init__(
        self,
        num_samples: int = 1000,
        batch_size: int = 50,
        every_n_validations: int = 1,
        seed: int = 0,
        features: nn.Module | None = None,
        reference: str | None = None,
        cfg: float | None = None,
        temperature: float | None = None,
        keep: Literal["png", "npz"] | None = None,
        cache_dir: str | None = None,
    ) -> None:
        """Check the options.

        Args:
            num_samples: number of samples of all devices together, a multiple of the number of classes; published FIDs
                use 50000.
            batch_size: number of samples generated at once. Another size gives other samples.
            every_n_validations: number of validations of ``fit`` from one evaluation to the next, beginning with the
                first; 0 evaluates only in ``validate`` and ``test``.
            seed: seed of the noise.
            features: the extractor, any `litscale.metrics.features.FeatureExtractor`; null = the default for the kind
                of data.
            reference: .npz with mu and sigma, or images as arr_0, or both (ADM's reference batches); null = the data.
            cfg: guidance scale to use instead of the module's own.
            temperature: temperature to use instead of the module's own.
            keep: outside of ``fit``, keep the images in the run's folder as PNG files (``quality_<stage>/``) or as one
                ``quality_<stage>.npz`` in ADM's layout, which OpenAI's evaluator reads.
            cache_dir: folder for cached features of the data; null = as for `PianoRollDataModule`.

        Raises:
            ValueError: a number is too small, or the extractor has no num_features.
        """
        super().__init__(num_samples, batch_size, every_n_validations, seed)
        if num_samples < LEAST_SAMPLES:
            raise ValueError(f"num_samples must be at least {LEAST_SAMPLES}, not {num_samples}")
        if features is not None:
            checked_size(features)
        self.features = features
        self.reference = reference
        self.changes = {
            name: value for name, value in (("cfg", cfg), ("temperature", temperature)) if value is not None
        }
        self.keep = keep
        self.cache_dir = cache_dir

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check module and data, and choose the extractor.

        Raises:
            MisconfigurationException: the data have no canvases, or are a cache of tokens without a reference; the
                module cannot generate, or not with these settings; or ``keep`` is given for data that are no images.
            ValueError: the classes of data and extractor differ, or do not divide num_samples.
            FileNotFoundError: the weights of Inception are missing.
        """
        super().setup(trainer, pl_module, stage)
        if not self.evaluates_in(stage):
            return
        # 1. what the data and the module must offer
        if self.reference is None and offered(data_of(trainer), TokenData) is not None:
            raise MisconfigurationException(
                "GenerationQuality compares with images, but a cache of tokens has none: give the data module of the "
                "images as data, or a reference"
            )
        data = required(data_of(trainer), CanvasData, self)
        required(pl_module, Generates, self)
        if self.changes and not offered(pl_module, GenerationOptions):
            raise MisconfigurationException(
                f"{', '.join(self.changes)}: {type(pl_module).__name__} has no `generation` settings to change"
            )
        if self.keep and data.alphabet != 256:
            raise MisconfigurationException("keep is for images; set it to null, `litscale predict` writes rolls")
        # 2. the extractor
        if self.features is None:
            rendered = offered(data, RenderedData)
            renderer = None if rendered is None else rendered.renderer
            if isinstance(renderer, RollRenderer):
                self.features = MusicFeatures(renderer.format, renderer.beats_per_bar)
            else:
                self.features = InceptionFeatures()
        # 3. classes of the data and of the extractor
        classes, known = class_count(data), class_count(self.features) or None
        if classes and known not in (None, classes):
            raise ValueError(
                f"{type(self.features).__name__} knows {known} classes, the data has {classes}: give an extractor of "
                "the data's classes, or one without num_classes"
            )
        if classes and self.num_samples % classes:
            more = self.num_samples + classes - self.num_samples % classes
            raise ValueError(
                f"num_samples {self.num_samples} is not a multiple of the {classes} classes, and each must have "
                f"equally many: give {more}"
            )
        self._extractor, self._shape = self.features, data.canvas_shape
        self._classes, self._class_names = classes, class_names_of(data)
        self._recognises = bool(classes) and known is not None

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the reference, if it is a file or cached, and make the metrics that it allows.

        Raises:
            ValueError: the extractor does not take the data's canvases, or the reference has other features.
            FileNotFoundError: the file of the reference is missing.
        """
        device, size = pl_module.device, checked_size(self._extractor)
        self._extractor.to(device).eval()
        probe = torch.zeros(1, *self._shape, dtype=torch.uint8, device=device)
        _, logits = extract(self._extractor, probe)
        self._real = QualityReference(self._extractor, self.reference, self.cache_dir, self.batch_size)
        self._real.begin(trainer, device)
        metrics: dict[str, Metric | MetricCollection] = {"fid": FrechetDistance(size)}
        if self._real.has_features:
            metrics |= {"kid": KernelDistance(), "precision_recall": PrecisionRecall()}
        if logits is not None:
            metrics |= {"inception_score": InceptionScore()}
        if self._recognises:
            metrics |= {"class_accuracy": MulticlassAccuracy(self._classes, average="micro")}
        self._scores = MetricCollection(metrics, compute_groups=False).to(device)
        named = self._recognises and bool(self._class_names)
        self._by_class = MulticlassAccuracy(self._classes, average=None).to(device) if named else None

    def begin_samples(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the scores, and outside of ``fit`` open the store of the samples."""
        self._scores.reset()
        if self._by_class is not None:
            self._by_class.reset()
        self._store: SampleStore | None = None
        if trainer.state.fn != TrainerFn.FITTING:
            with self._changed(pl_module):
                key: dict[str, Any] = {"settings": self._settings(pl_module)}
            key |= {"precision": trainer.precision, "classes": self._classes}
            key |= {"batch_size": self.batch_size, "weights": identity(pl_module)}
            self._store = SampleStore(run_folder(trainer) / "quality_batches", str(key))

    def generate(self, trainer: Trainer, pl_module: LightningModule, first: int, count: int, seed: int) -> Tensor:
        """Generate samples, or read them if an interrupted evaluation has stored them."""
        canvases = None if self._store is None else self._store.read(first, count)
        if canvases is None:
            with self._changed(pl_module):
                canvases = super().generate(trainer, pl_module, first, count, seed)
            if self._store is not None:
                self._store.write(first, canvases)
        return canvases

    def take_samples(self, trainer: Trainer, first: int, canvases: Tensor) -> None:
        """Extract features of samples, uint8 ``[B, C, H, W]``, and update the scores."""
        device = self._scores["fid"].device
        index = torch.arange(first, first + len(canvases), device=device)
        features, logits = extract(self._extractor, canvases.to(device))
        target = index % self._classes if self._recognises else None
        self._scores.update(features=features, logits=logits, preds=logits, target=target, index=index)
        if self._by_class is not None and target is not None and logits is not None:
            self._by_class.update(logits, target)

    def take_data(self, trainer: Trainer, batch: dict[str, Any]) -> None:
        """Add real images to the reference, unless it is known."""
        # a cache of tokens has no canvases, and needs a reference
        if "canvas" in batch and (chosen := without_overlap(batch)) is not None:
            self._real.take(trainer, chosen["canvas"])

    def end_data(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute statistics and features of the reference, and give them to the metrics."""
        self._real.end(trainer)
        self._scores["fid"].reference = self._real.statistics
        if self._real.has_features:
            self._scores["kid"].reference = self._scores["precision_recall"].reference = self._real.features

    def outcome(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        """Return name -> score, float32, with the statistics of decoding."""
        self._values = {name: value.float() for name, value in self._scores.compute().items()}
        shares = [] if self._by_class is None else self._by_class.compute().tolist()
        self._class_shares = dict(zip(self._class_names, shares, strict=False))
        _, prefix = stage_of(trainer)
        return {f"{prefix}/{name}": value for name, value in self._values.items()} | self.decoding(prefix)

    def report(self, trainer: Trainer, pl_module: LightningModule) -> Report:
        """Return the report on the scores and all that they depend on, and export or delete the images."""
        # 1. the images
        stage, _ = stage_of(trainer)
        if trainer.is_global_zero:
            self._finish(run_folder(trainer) / f"quality_{stage}")
        # 2. what is recorded
        with self._changed(pl_module):
            settings = self._settings(pl_module)
        count = self._real.statistics.count
        scores = {name: float(value) for name, value in self._values.items()}
        checkpoint = checkpoint_of(trainer)
        data = {
            "stage": stage,
            "checkpoint": checkpoint,
            "samples": self.num_samples,
            "features": type(self.features).__name__,
            "reference": self._real.name,
            "reference_samples": count,
            "settings": settings,
            "scores": scores,
        }
        # 3. what is shown
        number = "" if count is None else f" ({count} images)"
        title = f"{self.num_samples} samples against {self._real.name}{number} in {type(self.features).__name__}"
        rows = {name: {"score": value} for name, value in scores.items()}
        tables = [ResultTable("score", {"score": Column("", "{:.5g}", "not finite")}, rows, title)]
        if self._class_shares:
            data["class_accuracy"] = self._class_shares
            shares = {name: {"share": share} for name, share in self._class_shares.items()}
            tables.append(
                ResultTable("class", {"share": Column("", "{:.1%}")}, shares, "Samples recognised as their class")
            )
        drawn = "Drawn with " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."
        return Report(
            f"quality_{stage}", f"Generation quality ({stage})", tables, data, checkpoint=checkpoint, remark=drawn
        )

    def _finish(self, path: Path) -> None:
        """Export the samples as ``keep`` says, and delete the batches; all ranks are done, as scores are computed."""
        assert self._store is not None  # a report is made outside of fit, where batches are kept
        batches = self._store.batches(self.num_samples, self.batch_size)
        if self.keep == "png":
            write_pngs(path, batches)
        elif self.keep == "npz":
            labels = np.arange(self.num_samples) % self._classes if self._classes else None
            write_npz(path.with_suffix(".npz"), batches, labels, self.num_samples)
        self._store.remove()

    def _settings(self, pl_module: LightningModule) -> dict[str, Any]:
        """Return the settings with which samples are drawn."""
        module = offered(pl_module, GenerationOptions)
        return (dict(module.described_generation()) if module is not None else {}) | {"seed": self.seed}

    @contextmanager
    def _changed(self, pl_module: LightningModule) -> Iterator[None]:
        """Use this callback's cfg and temperature in place of the module's, inside the block."""
        if not self.changes:
            yield
            return
        module: Any = pl_module  # which has options, as `setup` has checked
        own = module.generation
        module.generation = replace(own, **self.changes)
        try:
            yield
        finally:
            module.generation = own
