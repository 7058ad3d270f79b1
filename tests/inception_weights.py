"""Weights of Inception for tests: random ones, in torch-fidelity's file format."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as inception


def write_random_weights(path: Path) -> Path:
    """Write a state dict whose features vary between images as trained ones do."""

    class Untrained(inception.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            """Keep the initial weights."""

    with torch.random.fork_rng(), patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}):
        torch.manual_seed(0)
        network = Untrained("untrained", ["2048"])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path
