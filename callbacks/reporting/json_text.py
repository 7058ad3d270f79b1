"""`json_text`: JSON without NaN and infinity, which the format does not have."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any) -> bytes:
    """Return dicts, lists and numbers as JSON text, with null for NaN and infinity."""
    return (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
