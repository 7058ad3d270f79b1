"""Run by `test_quality_two_ranks.py` as a program, in two processes on the CPU."""

from __future__ import annotations

import faulthandler
import json
import sys
from pathlib import Path

from callback_toys import trainer
from quality_toys import Bright, Painter, ToyImages

from callbacks import GenerationQuality

CASES = {"ten": 10, "four": 4}  # of four, rank 1 makes none


def evaluate(folder: Path, name: str, **options: object) -> dict[str, object]:
    """What one rank sees."""
    module, bright = Painter(), Bright()
    callback = GenerationQuality(
        num_samples=CASES[name], batch_size=4, features=bright, keep="npz", cache_dir=str(folder / f"cache_{name}")
    )
    run = trainer(folder / name, callbacks=[callback], **options)
    run.validate(module, ToyImages(), verbose=False)
    scores = {key: value.item() for key, value in run.callback_metrics.items()}
    seen = bright.seen
    trainer(folder / name, callbacks=[callback], **options).validate(module, ToyImages(), verbose=False)
    again = bright.seen - seen
    callback = GenerationQuality(
        num_samples=CASES[name], batch_size=4, features=bright, reference=str(folder / name / "quality_validate.npz")
    )
    itself = trainer(folder / name, callbacks=[callback], **options)
    itself.validate(Painter(), ToyImages(), verbose=False)
    own = {key: value.item() for key, value in itself.callback_metrics.items()}
    return {"scores": scores, "asked": module.asked, "seen": [seen, again], "own": own, "rank": run.global_rank}


def main(folder: Path) -> None:
    """Write what each rank saw to ``rank_<n>.json``."""
    faulthandler.dump_traceback_later(120, exit=True)  # a rank that waits for ever says where
    folder.mkdir(exist_ok=True)
    found = {name: evaluate(folder, name, devices=2, strategy="ddp") for name in CASES}
    (folder / f"rank_{found['ten']['rank']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
