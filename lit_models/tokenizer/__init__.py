"""What the modules share that train or use a tokenizer."""
