"""``litscale sweep``: trainings with different options, which one file describes, and the best of them."""
