"""What `callbacks.Checkpoints` is made of: files, interruptions, and Lightning's account of a training."""
