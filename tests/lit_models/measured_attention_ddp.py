"""Two processes that measure different attentions to be the fastest. Run by test_measured_attention.py.

Usage: measured_attention_ddp.py ddp|sharded FOLDER
"""

import json
import sys
from pathlib import Path

from lightning.pytorch.strategies import ModelParallelStrategy
from var_toys import ToyImages, lit_var, quiet

from lit_models import lit_var as lit_var_file

if __name__ == "__main__":
    sharded = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    folder = Path(sys.argv[2])
    trainer = quiet(
        folder, devices=2, strategy=sharded if sys.argv[1] == "sharded" else "ddp", max_steps=1, limit_val_batches=0
    )
    fastest = ("scales", "dense")[trainer.global_rank]
    lit_var_file.attention_times = lambda *_: {name: float(name != fastest) for name in ("dense", "scales")}
    module = lit_var(measure_attention=True)
    trainer.fit(module, datamodule=ToyImages())
    notes = {"attention": module.network.attention, "fastest here": fastest}
    (folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(notes))
