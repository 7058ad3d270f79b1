"""Images, a generator and an extractor whose scores can be worked out; the distributed test uses them too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from callback_toys import TwoLevels
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import ShardSampler

SIZE = 8


def image(number: int, label: int = 0) -> Tensor:
    """uint8 ``[3, 8, 8]``: noise that depends on its number, brighter in class 1."""
    noise = torch.randint(0, 100, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(number))
    return (noise + 150 * label).to(torch.uint8)


class Bright(nn.Module):
    """Five patches of the red channel as features, and logits of dark and bright."""

    num_features = 5

    def __init__(self, num_classes: int | None = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.seen = 0

    def forward(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(canvases)
        features = canvases[:, 0].float().flatten(1)[:, :40].unflatten(1, (5, 8)).mean(2) / 10
        mean = canvases.float().mean(dim=(1, 2, 3))
        return features, torch.stack([125 - mean, mean - 125], dim=1) / 10


@dataclass(frozen=True)
class Settings:
    cfg: float = 1.0
    temperature: float = 1.0


class Painter(TwoLevels):
    """Generates images known beforehand; every sixth has the wrong class. Remembers how it was asked to."""

    def __init__(self) -> None:
        super().__init__(lr=0.1)
        self.generation = Settings()
        self.asked: list[tuple[int, list[int]]] = []
        self.settings: list[Settings] = []
        self.weights: list[Tensor] = []
        self.fail_at: int | None = None

    def described_generation(self) -> dict[str, Any]:
        return asdict(self.generation)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return super().training_step(torch.ones(1, 2), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing of its own."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing of its own."""

    def generate(self, label: Tensor | None = None, *, index: Tensor, seed: int = 0, **_: Any) -> Tensor:
        numbers = index.tolist()
        if self.fail_at in numbers:
            raise KeyboardInterrupt
        self.asked.append((seed, numbers))
        self.settings.append(self.generation)
        self.weights.append(self.first.weight.detach().clone())
        labels = [0] * len(numbers) if label is None else label.tolist()
        return torch.stack([painted(seed, *pair) for pair in zip(numbers, labels, strict=True)])


def painted(seed: int, sample: int, label: int) -> Tensor:
    """What `Painter` generates as a sample of this number."""
    number = 100 * seed + sample
    return image(1000 + number, label if number % 6 else 1 - label)


class Images(Dataset):
    """Images of two classes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"canvas": image(index, index % 2), "label": index % 2}


class ToyImages(LightningDataModule):
    """The least that `GenerationQuality` asks of a data module."""

    canvas_shape = (3, SIZE, SIZE)
    alphabet = 256

    def __init__(self, num_classes: int = 2, count: int = 11) -> None:
        super().__init__()
        self.num_classes, self.count = num_classes, count

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Images(4), batch_size=2)

    def val_dataloader(self) -> DataLoader:
        data = Images(self.count)
        sampler = ShardSampler(data, self.trainer.world_size, self.trainer.global_rank)
        return DataLoader(data, batch_size=4, sampler=sampler)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()
