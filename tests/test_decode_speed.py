"""The decoding benchmark runs; what it measures is for benchmarks/RESULTS.md."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "decode_speed.py"


@pytest.mark.slow
def test_decode_speed_prints_both_tables():
    shapes = ["--draft", "1", "16", "2", "--target", "2", "32", "2", "--patch-nums", "1", "2", "3", "--vocab", "16"]
    options = [*shapes, "--batches", "1", "2", "--gammas", "1", "3", "--repeats", "1"]
    run = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line[:1] == "|"]
    speeds, even = rows[:18], rows[18:]
    assert [row[:3] for row in speeds[2:]] == [
        [batch, gamma, rate] for batch in "12" for gamma in "13" for rate in ("0.0", "0.5", "0.8", "1.0")
    ]
    assert [row[3] for row in speeds[2:] if row[2] == "0.0"] == ["3.00"] * 4
    assert [row[3] for row in speeds[2:] if row[2] == "1.0"] == ["2.00", "1.00"] * 2
    assert [row[:2] for row in even[2:]] == [["1", "1"], ["1", "3"], ["2", "1"], ["2", "3"]]
