"""Constructor arguments of the published FractalGen models (arXiv 2502.17437), as the official code spells them."""

from __future__ import annotations

from typing import Any

# What the published models share: 1000 classes, and training settings that are constructor arguments.
_SHARED = {"class_num": 1000, "attn_dropout": 0.1, "proj_dropout": 0.1, "label_drop_prob": 0.1, "r_weight": 5.0}
_IN64 = {
    "img_size_list": [64, 4, 1],
    "embed_dim_list": [1024, 512, 128],
    "num_blocks_list": [32, 8, 3],
    "num_heads_list": [16, 8, 4],
    **_SHARED,
}
_IN256 = {
    "img_size_list": [256, 16, 4, 1],
    "generator_type_list": ["mar", "mar", "mar", "ar"],
    "num_conds": 5,
    "guiding_pixel": True,
    **_SHARED,
}

PRESETS: dict[str, dict[str, Any]] = {
    "fractalar_in64": {"generator_type_list": ["ar", "ar", "ar"], "num_conds": 1, "guiding_pixel": False, **_IN64},
    "fractalmar_in64": {"generator_type_list": ["mar", "mar", "ar"], "num_conds": 5, "guiding_pixel": False, **_IN64},
    "fractalmar_base_in256": {
        "embed_dim_list": [768, 384, 192, 64],
        "num_blocks_list": [24, 6, 3, 1],
        "num_heads_list": [12, 6, 3, 4],
        **_IN256,
    },
    "fractalmar_large_in256": {
        "embed_dim_list": [1024, 512, 256, 64],
        "num_blocks_list": [32, 8, 4, 1],
        "num_heads_list": [16, 8, 4, 4],
        **_IN256,
    },
    "fractalmar_huge_in256": {
        "embed_dim_list": [1280, 640, 320, 64],
        "num_blocks_list": [40, 10, 5, 1],
        "num_heads_list": [16, 8, 4, 4],
        **_IN256,
    },
}
