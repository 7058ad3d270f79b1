"""Stands in for ``litscale fit`` in a trial: minimises nothing in some steps, can be interrupted, and goes on."""

import os
import signal
import sys
import time
from pathlib import Path

from litscale.storage.sweep_record import report

SECONDS = 0.05  # a step
STEPS = 4
KNOWN = ("trainer.", "checkpoints.", "ckpt_path", "model.lr", "model.width")


def main():
    words = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[2:] if "=" in word)
    unknown = [name for name in words if not name.startswith(KNOWN)]
    if unknown:
        sys.exit(f"Seed set to 1\nlitscale fit: error: Unrecognized arguments: {unknown}")
    if "--print_config" in sys.argv:
        print("{}")
        return
    run = Path(words["trainer.default_root_dir"])
    trial = Path(words["trainer.callbacks.sweep"]), int(words["trainer.callbacks.number"])
    lr, width = float(words["model.lr"]), int(words["model.width"])
    # 1. where it left off
    last = run / "last.txt"
    begun = int(last.read_text()) if last.exists() else 0
    with (run / "starts.txt").open("a") as starts:
        starts.write(f"{begun}\n")
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    print(f"token=abc of group {os.environ['WANDB_RUN_GROUP']} as {os.environ['WANDB_RUN_ID']}", flush=True)
    # 2. the steps
    for step in range(begun, STEPS):
        time.sleep(SECONDS)
        if width == 13:
            sys.exit("no weights\nValueError: a width of 13 brings bad luck\n\n\x1b[34mwandb\x1b[0m: synced\n")
        metric = "val/other" if width == 14 else "val/loss"
        if report(*trial, step + 1, {metric: (lr - 0.3) ** 2 + width + 1 / (step + 1)}):
            return
        last.write_text(str(step + 1))
        if stopped:
            sys.exit(128 + signal.SIGTERM)


main()
