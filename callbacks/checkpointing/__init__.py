"""Parts of `callbacks.Checkpoints`: files, interruptions, and corrections to Lightning's account of a training."""
