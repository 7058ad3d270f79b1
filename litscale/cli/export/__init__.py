"""``litscale export``: the model of a run as a folder that can be shared."""
