"""State dicts under the names of the official FractalGen code, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.presets import PRESETS
from litscale.models.state_dicts import differences, unwrapped

_LLAMA = {
    "norm1.weight": "attention_norm.weight",
    "attn.qkv.weight": "attention.wqkv.weight",
    "attn.proj.weight": "attention.wo.weight",
    "norm2.weight": "ffn_norm.weight",
    "mlp.gate.weight": "feed_forward.w1.weight",
    "mlp.up.weight": "feed_forward.w3.weight",
    "mlp.down.weight": "feed_forward.w2.weight",
}
_GENERATOR = {"pos_emb": "pos_embed_learned", "in_norm.": "patch_emb_ln.", "guide_emb.": "pix_proj."}
_COLOURS = ("r", "g", "b")


def load_official(
    checkpoint: Mapping[str, Any] | str | Path, arguments: Mapping[str, Any] | str, **options: Any
) -> Fractal:
    """Build a model from the official constructor arguments and fill it from an official state dict.

    Args:
        checkpoint: see :func:`fill_official`.
        arguments: official constructor arguments: ``img_size_list``, ``embed_dim_list``, ``num_blocks_list``,
            ``num_heads_list``, ``generator_type_list``, ``class_num``, ``num_conds``, ``guiding_pixel`` and optionally
            ``attn_dropout``, ``proj_dropout``, ``label_drop_prob``, ``r_weight``, ``grad_checkpointing``; or the name
            of one of :data:`litscale.models.fractal.presets.PRESETS`.
        options: further arguments of :class:`litscale.models.fractal.Fractal`, which win.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unknown preset; a file that is damaged or holds code; entries that are missing, unexpected or of
            another shape, which are all listed.
    """
    model = Fractal(**official_arguments(arguments) | options)
    fill_official(model, checkpoint)
    return model


def fill_official(model: Fractal, checkpoint: Mapping[str, Any] | str | Path) -> None:
    """Copy an official state dict into a model.

    Args:
        model: built from the matching arguments.
        checkpoint: the state dict, one wrapped as ``{"model": ...}``, or a file that holds either.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or holds code; entries that are missing, unexpected or of another shape,
            which are all listed.
    """
    state = unwrapped(checkpoint, "model")
    wanted = dict(_pairs(model))
    if problems := differences(wanted, state):
        raise ValueError("the official checkpoint does not fit this model: " + "; ".join(problems))
    with torch.no_grad():
        for name, ours in wanted.items():
            ours.copy_(state[name])


def to_official(model: Fractal) -> dict[str, Tensor]:
    """Return copies of a model's parameters under the official names and in the official shapes."""
    return {name: ours.detach().clone() for name, ours in _pairs(model)}


def official_arguments(arguments: Mapping[str, Any] | str) -> dict[str, Any]:
    """Translate official constructor arguments, or the name of a preset, into those of :class:`Fractal`.

    Raises:
        ValueError: there is no such preset.
    """
    if isinstance(arguments, str):
        if arguments not in PRESETS:
            raise ValueError(f"there is no preset {arguments!r}; known are {', '.join(PRESETS)}")
        arguments = PRESETS[arguments]
    kinds = arguments["generator_type_list"][:-1]
    return {
        "sizes": [(side, side) for side in arguments["img_size_list"]],
        "generators": kinds,
        "widths": arguments["embed_dim_list"],
        "blocks": arguments["num_blocks_list"],
        "heads": arguments["num_heads_list"],
        "codec": "rgb",
        "num_classes": arguments["class_num"],
        "label_drop": arguments.get("label_drop_prob", 0.1),
        "root_conditions": arguments.get("num_conds", 5),
        "positions": ["both" if kind == "ar" else "learned" for kind in kinds],
        "guiding": arguments.get("guiding_pixel", False),
        "channel_weights": [arguments.get("r_weight", 1.0), 1.0, 1.0],
        "attn_dropout": arguments.get("attn_dropout", 0.1),
        "proj_dropout": arguments.get("proj_dropout", 0.1),
        "grad_checkpointing": arguments.get("grad_checkpointing", False),
        "zero_prefix_rope": True,
    }


def _pairs(model: Fractal) -> Iterator[tuple[str, Tensor]]:
    """Yield the official name of each official entry, and our parameter as a view in the official shape."""
    yield "fake_latent", model.no_class
    if model.class_emb is not None:
        yield "class_emb.weight", model.class_emb.weight
    prefix = ""
    for level in model.levels:
        for name, parameter in level.generator.named_parameters():
            if name in ("pos_emb", "mask_token"):
                parameter = parameter.view(1, -1, parameter.shape[-1])  # type: ignore[assignment]
            yield f"{prefix}generator.{_generator_name(name, level.generator.causal)}", parameter
        if level.guide_head is not None:
            yield from _head_pairs(f"{prefix}generator.guiding_pixel_loss.", level.guide_head)
        prefix += "next_fractal."
    yield from _head_pairs(prefix, model.leaf)


def _generator_name(name: str, llama: bool) -> str:
    if llama and name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        return f"blocks.{number}.{_LLAMA[rest]}"
    for ours, official in _GENERATOR.items():
        if name.startswith(ours):
            return official + name.removeprefix(ours)
    return name


def _head_pairs(prefix: str, head: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in head.named_parameters():
        if name == "codebook":
            for colour, table in zip(_COLOURS, parameter, strict=True):
                yield f"{prefix}{colour}_codebook.weight", table
        elif name == "bias":
            for colour, bias in zip(_COLOURS, parameter, strict=True):
                yield f"{prefix}{colour}_mlm.bias", bias[None]
        else:
            yield prefix + name.replace("in_norm.", "ln."), parameter
