"""What tests of data modules share: files that are found, modules that are set up, and all that a loader gives."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningDataModule

Module = TypeVar("Module", bound=LightningDataModule)


def touch(root: Path, *names: str) -> None:
    """Make empty files, and their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def ready(module: Module, *stages: str) -> Module:
    """The module, set up for stages, by default for ``fit``."""
    module.prepare_data()
    for stage in stages or ("fit",):
        module.setup(stage)
    return module


def everything(loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The canvases and labels of all batches."""
    batches = list(loader)
    return torch.cat([batch["canvas"] for batch in batches]), torch.cat([batch["label"] for batch in batches])
