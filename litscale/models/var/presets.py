"""The published models (arXiv 2404.02905), as official constructor arguments."""

from __future__ import annotations

from typing import Any

_SIDES_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
_SIDES_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)

PRESETS: dict[str, dict[str, Any]] = {
    "vae_256": {"vocab_size": 4096, "z_channels": 32, "ch": 160, "v_patch_nums": _SIDES_256},
    "vae_512": {"vocab_size": 4096, "z_channels": 32, "ch": 160, "v_patch_nums": _SIDES_512},
    "var_d16": {"depth": 16, "patch_nums": _SIDES_256, "num_classes": 1000, "drop_path_rate": 0.1 * 16 / 24},
    "var_d20": {"depth": 20, "patch_nums": _SIDES_256, "num_classes": 1000, "drop_path_rate": 0.1 * 20 / 24},
    "var_d24": {"depth": 24, "patch_nums": _SIDES_256, "num_classes": 1000, "drop_path_rate": 0.1 * 24 / 24},
    "var_d30": {"depth": 30, "patch_nums": _SIDES_256, "num_classes": 1000, "drop_path_rate": 0.1 * 30 / 24},
    "var_d36_512": {
        "depth": 36,
        "patch_nums": _SIDES_512,
        "num_classes": 1000,
        "drop_path_rate": 0.1 * 36 / 24,
        "shared_aln": True,
    },
}
"""Arguments by name: ``vae_<pixels>`` are tokenizers, ``var_d<depth>`` transformers (at 256 px unless it says 512)."""
