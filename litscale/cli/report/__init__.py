"""``litscale report`` and ``litscale compare``: runs side by side, as an HTML page and as a table."""
