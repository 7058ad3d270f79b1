"""Parts of `callbacks.Checkpoints`: files, interruptions, and corrections to Lightning's record of progress."""
