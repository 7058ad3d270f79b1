"""`TokenWriter`: tokens of ``predict`` as a cache."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.reporting.trainer_state import run_folder
from datamodules.base import data_of, offered
from datamodules.tokens.cache import INDEX, TokenMetadata, good_shards, write_shard
from datamodules.tokens.tokenization import TokenizationDataModule
from lit_models.contracts import TokenMaker


class TokenWriter(Callback):
    """Writes the tokens of each batch of ``predict`` as a shard of a cache, for `datamodules.TokenDataModule`.

    Use it with `lit_models.LitVQVAE` and `datamodules.TokenizationDataModule`. An interrupted run can be resumed:
    shards that are already whole are neither encoded nor written again. Each device writes what it encoded; all of
    them must see the folder.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        """Set up the callback; nothing is written yet.

        Args:
            output_dir: folder for the cache of tokens; by default ``tokens`` in the run folder.
        """
        super().__init__()
        self.output_dir = output_dir

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the module and the data.

        Raises:
            MisconfigurationException: the module makes no tokens, or the data module is no `TokenizationDataModule`.
        """
        if stage != "predict":
            return
        data = data_of(trainer)
        if not offered(pl_module, TokenMaker) or not isinstance(data, TokenizationDataModule):
            raise MisconfigurationException(
                "TokenWriter needs lit_models.LitVQVAE and datamodules.TokenizationDataModule, not "
                f"{type(pl_module).__name__} and {type(data).__name__}"
            )
        self._folder = Path(self.output_dir or run_folder(trainer) / "tokens")
        self._written = 0
        # Asked for later, when the checkpoint's weights are there: the index names them.
        data.done = partial(self._begin, trainer, pl_module, data)

    def _begin(
        self, trainer: Trainer, pl_module: LightningModule, data: TokenizationDataModule
    ) -> set[tuple[str, int]]:
        """Write the index, unless it exists, and return split and number of each whole shard.

        Raises:
            ValueError: the folder holds another cache.
            OSError: the index cannot be written.
        """
        metadata = TokenMetadata(
            **cast(TokenMaker, pl_module).token_metadata(), num_classes=data.num_classes, shards=data.shards
        )
        if (self._folder / INDEX).is_file():
            there = TokenMetadata.read(self._folder)
            if differing := [name for name, value in asdict(metadata).items() if asdict(there)[name] != value]:
                raise ValueError(
                    f"output_dir: {self._folder} holds the tokens of another tokenizer or of other data (its "
                    f"{', '.join(differing)} differ): give another output_dir, or remove that one"
                )
        elif trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            metadata.write(self._folder)
        return good_shards(self._folder, metadata)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the shard of a batch.

        Raises:
            OSError: the shard could not be written.
        """
        label = outputs.get("label")
        labels = None if label is None else label.cpu().numpy()
        write_shard(self._folder, outputs["split"], outputs["number"], outputs["tokens"].cpu().numpy(), labels)
        self._written += 1

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print what was written, on rank zero."""
        if stage == "predict" and trainer.is_global_zero:
            ranks = " on rank 0" if trainer.world_size > 1 else ""
            print(f"Wrote {self._written} shards of tokens{ranks} to {self._folder}")
