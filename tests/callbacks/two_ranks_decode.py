"""Run by `test_target_calls.py` as a program, in two processes on the CPU."""

from __future__ import annotations

import faulthandler
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from callback_toys import trainer
from decode_toys import Comparing
from lightning.pytorch import Callback
from quality_toys import Bright, ToyImages
from sdvar_lit_toys import lit_sdvar, speculative
from torch.utils.data import DataLoader
from var_toys import ToyImages as SmallImages

from callbacks import TargetCalls
from datamodules.loading import ShardSampler
from litscale.models.sdvar import KL, Coupled, Refine, Speculative
from litscale.models.var import Pruning, VARGeneration


class Canvases(Callback):
    """Keeps the images that were decoded, as lists."""

    def __init__(self) -> None:
        self.kept: list[list[int]] = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        """Keep them."""
        self.kept += outputs.canvas.flatten(1).tolist()


class Dealt(SmallImages):
    """Seven images, each for one process only."""

    def __init__(self) -> None:
        super().__init__(images=7)

    def test_dataloader(self):
        """In order."""
        items = self.items()
        return DataLoader(items, 4, sampler=ShardSampler(items, self.trainer.world_size, self.trainer.global_rank))


# Speculative decoding, and each way to save arithmetic.
DECODERS: dict[str, dict[str, Any]] = {
    "speculative": speculative(gamma=2, acceptance=KL(0.85)),
    "guidance": {
        "decoder": partial(Speculative, gamma=2, acceptance=Coupled()),
        "generation": VARGeneration(cfg=1.5, cfg_until=2),
    },
    "pruning": {
        "decoder": partial(Refine, large_scales=1),
        "generation": VARGeneration(cfg=1.5, prune=Pruning(1, (0.5,))),
    },
}


def decoded(folder: Path, decoder: str, **options: object) -> tuple[dict[str, float], list[list[int]]]:
    """Numbers and images of a small pair."""
    seen = Canvases()
    run = trainer(folder, callbacks=[TargetCalls(), seen], **options)
    module = lit_sdvar(**DECODERS[decoder], seed=3)
    run.test(module, Dealt(), verbose=False)
    return {key: float(value) for key, value in run.callback_metrics.items()}, seen.kept


def main(folder: Path) -> None:
    """Write what each rank saw to ``rank_<n>.json``."""
    faulthandler.dump_traceback_later(120, exit=True)  # a rank that waits for ever says where
    module, both = Comparing(), {"devices": 2, "strategy": "ddp"}
    callback = TargetCalls(features=Bright(), cache_dir=str(folder / "cache"))
    run = trainer(folder, callbacks=[callback], **both)
    run.validate(module, ToyImages(), verbose=False)
    toy = {key: value.item() for key, value in run.callback_metrics.items() if key.startswith("sdvar/")}
    pairs = {decoder: decoded(folder / decoder, decoder, **both) for decoder in DECODERS}
    found = {"toy": toy, "decoded": module.decoded, "pairs": pairs}
    (folder / f"rank_{run.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
