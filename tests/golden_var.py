"""Networks and numbers recorded from the official VAR code, see tests/golden/var/README.md."""

import functools
import json
from pathlib import Path

from safetensors.torch import load_file

from litscale.models.var import load_official_var, load_official_vqvae

GOLDEN = Path(__file__).parent / "golden" / "var"
META = json.loads((GOLDEN / "meta.json").read_text())
CONFIG = META["config"]
VQVAE_ARGUMENTS = {**CONFIG["vae"], "ch_mult": CONFIG["ch_mult"]}
NAMES = list(CONFIG["vars"])
SCALES = len(CONFIG["vae"]["v_patch_nums"])


@functools.cache
def tensors(name):
    """All tensors of a recorded file."""
    return load_file(GOLDEN / f"{name}.safetensors")


def series(io, key, scales=SCALES):
    """The recorded tensors ``<key>.0``, ``<key>.1``, ... of the scales."""
    return [io[f"{key}.{k}"] for k in range(scales)]


def var_arguments(name):
    """Official constructor arguments of a recorded transformer."""
    return {**CONFIG["vars"][name], "num_classes": CONFIG["num_classes"]}


def tokenizer(**options):
    """The recorded tokenizer, in evaluation mode."""
    return load_official_vqvae(tensors("vqvae_state"), VQVAE_ARGUMENTS, **options).eval()


def transformer(name, vqvae=None, **options):
    """A recorded transformer, in evaluation mode."""
    return load_official_var(
        tensors(f"{name}_state"), vqvae or tokenizer(), var_arguments(name), **{"label_drop": 0.0} | options
    ).eval()
