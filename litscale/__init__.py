"""Training, evaluation and sampling of hierarchical autoregressive generators."""

__version__ = "0.2.0"
