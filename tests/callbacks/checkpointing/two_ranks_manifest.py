"""Run by `test_manifest.py` as a program, in two processes on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

from run_toys import fit

if __name__ == "__main__":
    fit(Path(sys.argv[1]), max_steps=2, devices=2, strategy="ddp")
