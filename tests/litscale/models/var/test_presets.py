"""The published models: 680 and 2240 tokens an image, a drop path rate of 0.1 at depth 24 that grows with the depth."""

import pytest

from litscale.models.var.presets import PRESETS


def test_all_published_models_are_there():
    assert sorted(PRESETS) == ["vae_256", "vae_512", "var_d16", "var_d20", "var_d24", "var_d30", "var_d36_512"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_numbers(name):
    preset = dict(PRESETS[name])
    sides = preset.pop("patch_nums", None) or preset.pop("v_patch_nums")
    large = name.endswith("512")
    assert len(sides) == 10
    assert sum(side**2 for side in sides) == (2240 if large else 680)
    assert sides[-1] * 16 == (512 if large else 256)
    if name.startswith("vae"):
        assert preset == {"vocab_size": 4096, "z_channels": 32, "ch": 160}
        return
    depth = int(name.split("_")[1].removeprefix("d"))
    assert preset.pop("drop_path_rate") == pytest.approx(depth / 240)
    assert preset == {"depth": depth, "num_classes": 1000} | ({"shared_aln": True} if large else {})
