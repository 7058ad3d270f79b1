"""`AttentionDiagnostics`: entropy and reach of the attention of each head, in numbers and pictures."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from callbacks.reporting.figures import pixels, write_picture
from callbacks.reporting.loggers import send_numbers, send_pictures
from callbacks.reporting.trainer_state import run_folder
from datamodules.base import required
from lit_models.contracts import AttentionReports

MEASURES = {"entropy": "entropy in nats", "reach": "mean distance in patches"}


class AttentionDiagnostics(Callback):
    """Measures the attention of every head on a few canvases of validation.

    The picture ``attention/heads`` shows the entropy of each head in nats (0: one place only), and the mean distance in
    patches to where it looks. It is also written to the run's folder, as ``attention/step_<n>.png``, outside of ``fit``
    ``validate.png``. With ``scalars``, ``attention/entropy/level_0/block_1/head_2``, ``attention/reach/...`` and so on
    are logged, too: two numbers for each head, which fill a dashboard. Rank zero alone measures, on its first batch;
    attention weights are computed in full, which takes memory, so keep the canvases few.
    """

    def __init__(self, every_n_validations: int = 1, num_canvases: int = 2, scalars: bool = False) -> None:
        """Check the options.

        Args:
            every_n_validations: number of validations from one measurement to the next; the first one is measured.
            num_canvases: number of canvases of the first batch that are measured.
            scalars: also log the numbers of each head, not only the picture.

        Raises:
            ValueError: a number is below 1.
        """
        super().__init__()
        if min(every_n_validations, num_canvases) < 1:
            raise ValueError("every_n_validations and num_canvases must be at least 1")
        self.every_n_validations = every_n_validations
        self.num_canvases = num_canvases
        self.scalars = scalars
        self._validations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module reports its attention.

        Raises:
            MisconfigurationException: the module has no ``attention_report``.
        """
        required(pl_module, AttentionReports, self)
        self._validations = 0

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure the first batch; averaged weights are in place by then, whatever the order of callbacks."""
        if batch_idx or dataloader_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self._validations += 1
        if (self._validations - 1) % self.every_n_validations:
            return
        canvas, label = batch["canvas"][: self.num_canvases], batch.get("label")
        with trainer.precision_plugin.val_step_context():
            report = cast(AttentionReports, pl_module).attention_report(
                canvas, None if label is None else label[: self.num_canvases]
            )
        numbers, tables = {}, {}
        for level, attention in report.items():
            for measure in MEASURES:
                values = getattr(attention, measure).float().cpu().numpy()  # [block, head]
                tables[level, measure] = values
                for (block, head), value in np.ndenumerate(values):
                    numbers[f"attention/{measure}/{level}/block_{block}/head_{head}"] = float(value)
        if self.scalars:
            send_numbers(trainer, numbers)
        figure = heatmaps(tables)
        # Elsewhere trainers count no steps, and the pictures of a training run are to stay.
        name = f"step_{trainer.global_step}" if trainer.state.fn == TrainerFn.FITTING else "validate"
        path = run_folder(trainer) / "attention" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(figure, path)
        send_pictures(trainer, "attention/heads", [pixels(figure)])


def heatmaps(tables: dict[tuple[str, str], np.ndarray]) -> Figure:
    """Draw one heatmap ``[block, head]`` for each level and measure, in a row of the figure per level."""
    levels = list(dict.fromkeys(level for level, _ in tables))
    # Not pyplot, whose figures are global and would pile up.
    figure = Figure(figsize=(4 * len(MEASURES), 2.4 * len(levels)), dpi=100, layout="constrained")
    axes = figure.subplots(len(levels), len(MEASURES), squeeze=False)
    for row, level in enumerate(levels):
        for column, (measure, unit) in enumerate(MEASURES.items()):
            axis, values = axes[row, column], tables[level, measure]
            image = axis.imshow(values, aspect="auto", vmin=0, cmap="viridis")
            axis.set(title=f"{level}: {unit}", xlabel="head", ylabel="block")
            axis.set_xticks(range(values.shape[1]))
            axis.set_yticks(range(values.shape[0]))
            figure.colorbar(image, ax=axis)
    return figure
