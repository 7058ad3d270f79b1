"""Small modules and data whose logged values can be worked out by hand; the distributed test uses them too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import ShardSampler
from datamodules.requests import RequestRecord
from lit_models.lit_fractal import Generation, LitFractal
from lit_models.optimization import Optimization
from litscale.models.fractal import Fractal
from litscale.music import RollFormat, RollRenderer

FORM = RollFormat("onset_hold", velocity_bins=3, lowest_pitch=60, pitches=12)
STEPS = 16


class TwoLevels(LightningModule):
    """Two linear levels: loss = mean(x w0) + 3 mean(x w1), so the gradients are mean(x) and 3 mean(x)."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, **options: Any) -> None:
        super().__init__()
        self.first = nn.Linear(2, 1, bias=False)
        self.second = nn.Linear(2, 1, bias=False)
        nn.init.ones_(self.first.weight)
        nn.init.ones_(self.second.weight)
        self.optimizer, self.options = optimizer, {"lr": 0.0, **options}

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Any]:
        first, second = self.first(batch).mean(), 3 * self.second(batch).mean()
        report = {"loss/level_1": first, "loss/leaf": second.detach(), "mask_fraction/level_0": batch[:, 0].mean()}
        if batch_idx == 1:
            report["entropy"] = torch.tensor(7.0)
        return {"loss": first + second, "report": report}

    def parameters_by_level(self) -> dict[str, list[nn.Parameter]]:
        return {"level_0": list(self.first.parameters()), "leaf": list(self.second.parameters())}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters(), **self.options)


def pairs(*values: tuple[float, float]) -> DataLoader:
    """One batch of one row for each pair."""
    return DataLoader(torch.tensor(values, dtype=torch.float32), batch_size=1, shuffle=False)


def roll(number: int, steps: int = STEPS) -> np.ndarray:
    """A roll ``[12, steps]`` of struck and held notes that depends on its number."""
    random = np.random.default_rng(number)
    symbols = np.zeros((FORM.pitches, steps), dtype=np.uint8)
    for start in range(0, steps, 2):
        pitch = random.integers(FORM.pitches)
        symbols[pitch, start], symbols[pitch, start + 1] = random.integers(1, 4), FORM.hold
    return symbols


class Drawing(TwoLevels):
    """Generates rolls known beforehand, and remembers how it was asked to."""

    def __init__(self) -> None:
        super().__init__(lr=0.1)
        self.asked: list[tuple[int, list[int]]] = []
        self.labels: list[Tensor | None] = []
        self.weights: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return super().training_step(torch.ones(1, 2), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/nats_per_step", torch.tensor(2.5), on_epoch=True, sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/nats_per_step", torch.tensor(3.5), on_epoch=True, sync_dist=True)

    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        seed: int = 0,
        index: Tensor | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        assert not torch.is_grad_enabled()
        numbers = list(range(batch_size)) if index is None else index.tolist()
        self.asked.append((seed, numbers))
        self.labels.append(label)
        self.weights.append(self.first.weight.detach().clone())
        canvas = torch.stack([torch.from_numpy(drawn(seed, i))[None] for i in numbers])
        if frames is not None:
            for steps in (STEPS // 2, STEPS):
                done = torch.zeros_like(canvas, dtype=torch.bool)
                done[..., :steps] = True
                frames.append((canvas * done, done))
        return canvas


class LabelledDrawing(Drawing):
    """Reads labels of two classes, and draws the same for both."""

    def label_classes(self) -> int:
        return 2


def drawn(seed: int, number: int) -> np.ndarray:
    """What `Drawing` generates as sample ``number``."""
    return roll(1000 + 10 * seed + number)


class Windows(Dataset):
    """Six windows; with ``labels`` each has a class."""

    def __init__(self, labels: bool = False) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {"canvas": torch.from_numpy(roll(index))[None]}
        return {**item, "label": torch.tensor(index % 2)} if self.labels else item


class Requests(Dataset):
    """Batches of two samples; two steps of each are given."""

    def __init__(self, batches: int = 3) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, number: int) -> dict[str, Any]:
        known = torch.zeros(2, 1, FORM.pitches, STEPS, dtype=torch.bool)
        known[..., :2] = True
        canvas = torch.from_numpy(roll(0))[None, None].repeat(2, 1, 1, 1) * known
        return {"canvas": canvas, "known": known, "index": torch.tensor([2 * number, 2 * number + 1]), "seed": number}


class ToyRolls(LightningDataModule):
    """The least that callbacks and `LitFractal` ask of a data module of rolls."""

    canvas_shape = (1, FORM.pitches, STEPS)
    alphabet = FORM.alphabet

    def __init__(self, num_classes: int = 0, requests: int = 3) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.num_classes = num_classes
        self.requests = Requests(requests)
        self.renderer = RollRenderer(FORM)
        self.fits = 0

    def rolls(self, split: str) -> Iterator[np.ndarray]:
        assert split == "train"
        self.fits += 1
        return (roll(100 + number, 64) for number in range(3))

    def roll_labels(self, split: str) -> list[int]:
        assert split == "train"
        return [0, 1, 1] if self.num_classes else []

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Windows(self.num_classes > 0), batch_size=2)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Windows(self.num_classes > 0), batch_size=2)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def described_request(self) -> RequestRecord:
        return RequestRecord("toys", {"batches": len(self.requests)})

    def predict_dataloader(self) -> DataLoader:
        # As the real data module does; Lightning's own sampler would repeat a request to make ranks even.
        sampler = ShardSampler(self.requests, self.trainer.world_size, self.trainer.global_rank)
        return DataLoader(self.requests, batch_size=None, sampler=sampler)


def fractal(num_classes: int = 0, last: str = "mar") -> LitFractal:
    """A tiny two-level model of `ToyRolls`, always with the same weights; the generator of its last level is given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Fractal(
            sizes=[(12, 16), (12, 4), (1, 1)],
            generators=["ar", last],
            widths=[16, 16, 16],
            blocks=[2, 1, 1],
            heads=[4, 2, 2],
            codec=FORM.encoding,
            velocity_bins=FORM.velocity_bins,
            num_classes=num_classes,
            scan="column_major",
        )
    return LitFractal(network, Optimization(), Generation(iterations=2))


def trainer(folder: Any, **options: Any) -> Trainer:
    """A quiet trainer on the CPU."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    return Trainer(**{**defaults, **options})
