"""The benchmarks run; what they measure is for benchmarks/RESULTS.md."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fractal_speed.py"


@pytest.mark.slow
def test_fractal_speed_prints_both_tables():
    options = ["--width", "32", "--blocks", "1", "--repeats", "1"]
    run = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    rows = [line.split("|")[1].strip() for line in run.stdout.splitlines() if line.startswith("|")]
    assert rows == ["patches", "---", "64", "256", "1024"] * 2
