"""What another process says of words that it refuses."""

import sys

import pytest

from litscale.cli.parsed import parsed


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("litscale fit: error: --x: there is no such option", r"--x: there is no such option"),
        ("ImportError: no lightning", r"ImportError: no lightning \(exit status 1\)"),
    ],
)
def test_a_refusal_always_says_something(monkeypatch, last, message):
    monkeypatch.setattr("litscale.cli.parsed.COMMAND", [sys.executable, "-c", f"exit('Seed set to 1\\n{last}')"])
    with pytest.raises(ValueError, match=f"^{message}$"):
        parsed(["fit"])
