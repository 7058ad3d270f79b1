"""``litscale evaluate``: the checkpoints of a run, one after the other and as they appear."""
