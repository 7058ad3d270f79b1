"""Toy data and modules for the modules' tests."""

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lit_models import LitFractal, Optimization
from litscale.models.fractal import Fractal


class ToyData(LightningDataModule):
    """Random 8x8 rolls of three symbols, the same for every rank count."""

    batch_size = 4
    canvas_shape = (1, 8, 8)
    alphabet = 3

    def __init__(self, windows=16):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.canvas = torch.randint(0, 3, (windows, 1, 8, 8), dtype=torch.uint8, generator=generator)

    def train_dataloader(self):
        """All windows in order."""
        return DataLoader([{"canvas": window} for window in self.canvas], self.batch_size)

    val_dataloader = test_dataloader = train_dataloader


OF_MODULE = ("optimization", "generation", "nll_passes", "official_checkpoint", "compile_blocks")


def build(generators=("ar", "mar"), **options):
    """A small LitFractal for :class:`ToyData`."""
    torch.manual_seed(0)
    module = {"optimization": Optimization(lr=1e-2)}
    module |= {name: options.pop(name) for name in OF_MODULE if name in options}
    network = {"sizes": [(8, 8), (8, 1), (1, 1)], "velocity_bins": 1, "guiding": True} | options
    network |= {"generators": list(generators), "widths": [16] * 3, "blocks": [1] * 3, "heads": [2] * 3}
    return LitFractal(Fractal(**network), **module)


@pytest.fixture
def toy_data():
    """The class of toy data."""
    return ToyData


@pytest.fixture
def toy_module():
    """The builder of toy modules."""
    return build
