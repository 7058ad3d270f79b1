"""Lets the tests of this folder import `callback_toys`, as its distributed script does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
