"""``litscale sweep``: trainings with other options each, as one file says, and which of them is the best."""
