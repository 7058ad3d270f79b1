"""SIGTERM ends a process with status 143, also where it is not let go."""

import signal
import subprocess
import sys

import pytest

STUBBORN = """
import os, signal, time
from litscale.cli import signals
signals.GRACE = 0.2
with signals.ending_at_sigterm():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        print("went on")
    except SystemExit:
        time.sleep(60)  # an end that waits for others
"""
PROMPT = """
import os, signal
from litscale.cli import signals
with signals.ending_at_sigterm():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        print("went on")
    finally:
        print("tidied up")
"""
TWICE = """
import os, signal
from litscale.cli import signals
signals.end_at_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("went on")
"""


@pytest.mark.parametrize(
    ("code", "status", "output"),
    [(PROMPT, 143, "tidied up\n"), (STUBBORN, 143, ""), (TWICE, -signal.SIGTERM, "")],
    ids=["prompt", "stubborn", "twice"],
)
def test_sigterm(code, status, output):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (status, output)
