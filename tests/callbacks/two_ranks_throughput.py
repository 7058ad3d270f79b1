"""Run by `test_throughput.py` as a program, in two processes on the CPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from run_toys import Model, fit

from callbacks import Throughput, throughput


class Counting(Model):
    """Batches count as three samples."""

    def batch_counts(self, batch):
        """Three samples."""
        return {"samples": 3}


if __name__ == "__main__":
    rank = int(os.environ["LOCAL_RANK"])
    throughput._peak_memory = lambda device: (1 + rank) * 2**30
    options = {"devices": 2, "strategy": "ddp", "log_every_n_steps": 1, "max_steps": 3, "limit_val_batches": 0}
    run = fit(Path(sys.argv[1]), Counting(), callbacks=[Throughput()], **options)
    values = {
        name.rpartition("/")[2]: float(value) for name, value in run.callback_metrics.items() if "through" in name
    }
    Path(f"rank_{rank}.json").write_text(json.dumps(values))
