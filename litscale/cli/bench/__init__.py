"""``litscale bench``: speed and quality of decoders and samplers."""
