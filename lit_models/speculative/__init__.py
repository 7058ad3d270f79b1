"""Options, comparison and distillation of speculative decoding."""
