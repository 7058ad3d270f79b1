"""Training, evaluation and sampling of hierarchical autoregressive generators."""

from litscale.version import __version__ as __version__
