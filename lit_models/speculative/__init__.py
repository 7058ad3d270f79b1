"""Comparison and distillation of speculative decoding."""
