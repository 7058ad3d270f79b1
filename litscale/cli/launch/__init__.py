"""``litscale launch``: a command as a job of SLURM, with a snapshot of the code."""
