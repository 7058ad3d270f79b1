"""State dicts under the names of the official VAR code, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litscale.models.state_dicts import differences, unwrapped
from litscale.models.var.presets import PRESETS
from litscale.models.var.transformer import VAR
from litscale.models.var.vqvae import VQVAE

Checkpoint = Mapping[str, Any] | str | Path
Arguments = Mapping[str, Any] | str

_VQVAE_ARGUMENTS = {
    "v_patch_nums": "patch_nums",
    "patch_nums": "patch_nums",
    "vocab_size": "vocab",
    "z_channels": "dim",
    "ch": "channels",
    "ch_mult": "multipliers",
    "num_res_blocks": "blocks",
    "in_channels": "in_channels",
    "share_quant_resi": "phis",
    "quant_resi": "quant_resi",
    "beta": "beta",
    "using_znorm": "znorm",
    "dropout": "dropout",
}
_VAR_ARGUMENTS = {
    "num_classes": "num_classes",
    "depth": "depth",
    "embed_dim": "width",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "shared_aln": "shared_aln",
    "attn_l2_norm": "attn_l2_norm",
    "attn_drop_rate": "attn_dropout",
    "drop_rate": "dropout",
    "drop_path_rate": "drop_path",
    "cond_drop_rate": "label_drop",
}
_TOKENIZER_FACTS = {"patch_nums": "patch_nums", "vocab": "vocab", "z_channels": "dim"}
_IGNORED = {"seed", "norm_eps", "head_dim", "L"}  # in records of configurations; fixed, or follow from the others
_VAR_NAMES = {
    r"^pos_emb$": "pos_1LC",
    r"^scale_emb\.": "lvl_embed.",
    r"^word_emb\.": "word_embed.",
    r"^shared_modulation\.": "shared_ada_lin.1.",
    r"^head_modulation\.": "head_nm.ada_lin.1.",
    r"\.modulation_table$": ".ada_gss",
    r"\.modulation\.": ".ada_lin.1.",
    r"\.qkv\.": ".mat_qkv.",
    r"\.log_scale$": ".scale_mul_1H11",
    r"\.mlp\.": ".ffn.",
}


def load_official_vqvae(checkpoint: Checkpoint, arguments: Arguments, **options: Any) -> VQVAE:
    """Build a tokenizer from official constructor arguments and fill it from an official state dict.

    Args:
        checkpoint: the state dict; one wrapped as ``{"model": ...}`` or in a training checkpoint of the official code
            (``{"trainer": {"vae_local": ...}}``); or a file that holds any of these (read with weights only, so no
            code in it runs).
        arguments: official constructor arguments, or the name of an entry of :data:`PRESETS`. ``ch_mult``,
            which the official code fixes, is read from the checkpoint where it is not given.
        options: further arguments of :class:`litscale.models.var.VQVAE`, which win.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or holds code; unknown arguments; or entries that are missing, unexpected or
            of another shape, which are all listed.
    """
    state = unwrapped(checkpoint, "trainer", "vae_local", "model")
    given = dict(_arguments(arguments))
    given.setdefault("ch_mult", _multipliers(state, given))
    return _filled(VQVAE(**_translated(given, _VQVAE_ARGUMENTS) | options), state)


def load_official_var(checkpoint: Checkpoint, vqvae: VQVAE, arguments: Arguments, **options: Any) -> VAR:
    """Build a transformer from official constructor arguments and fill it from an official state dict.

    Args:
        checkpoint: as in :func:`load_official_vqvae`; in a training checkpoint it is ``var_wo_ddp``.
        vqvae: its tokenizer.
        arguments: official constructor arguments, or the name of an entry of :data:`PRESETS`. Scales,
            vocabulary and latent channels may be among them and must then be the tokenizer's; ``num_classes`` is read
            from the checkpoint where it is not given.
        options: further arguments of :class:`litscale.models.var.VAR`, which win.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or holds code; the arguments are unknown or contradict the tokenizer; the
            checkpoint is of another depth; or entries are missing, unexpected or of another shape; all are listed.
    """
    state = unwrapped(checkpoint, "trainer", "var_wo_ddp", "model")
    given = dict(_arguments(arguments))
    for name, ours in _TOKENIZER_FACTS.items():
        theirs, own = given.pop(name, None), getattr(vqvae, ours)
        if theirs is not None and (tuple(theirs) if isinstance(own, tuple) else theirs) != own:
            raise ValueError(f"the transformer's {name} is {theirs}, but its tokenizer's {ours} is {own}")
    if "class_emb.weight" in state:
        given.setdefault("num_classes", len(state["class_emb.weight"]) - 1)
    return _filled(VAR(vqvae, **_translated(given, _VAR_ARGUMENTS) | options), state)


def fill_official(model: VQVAE | VAR, checkpoint: Checkpoint) -> None:
    """Copy an official state dict into an existing model.

    Args:
        model: tokenizer or transformer.
        checkpoint: as in :func:`load_official_vqvae` or :func:`load_official_var`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or holds code; the checkpoint is of another depth; or entries are missing,
            unexpected or of another shape, which are all listed.
    """
    part = "vae_local" if isinstance(model, VQVAE) else "var_wo_ddp"
    _filled(model, unwrapped(checkpoint, "trainer", part, "model"))


def to_official(model: VQVAE | VAR) -> dict[str, Tensor]:
    """Return copies of a model's parameters and buffers under the official names and in the official shapes."""
    return {name: ours.detach().clone() for name, ours in (_learned(model) | _constants(model)).items()}


def _learned(model: VQVAE | VAR) -> dict[str, Tensor]:
    """Return our tensors by their official names, without those that the official code does not store."""
    name_of = _vqvae_name if isinstance(model, VQVAE) else _var_name
    pairs = ((name_of(model, name), tensor) for name, tensor in model.state_dict(keep_vars=True).items())
    return {name: tensor for name, tensor in pairs if name is not None}


def _constants(model: VQVAE | VAR) -> dict[str, Tensor]:
    """Return the official buffers that follow from the configuration, by their official names."""
    if isinstance(model, VQVAE):
        return {}
    bias = torch.zeros(model.may_attend.shape, device=model.may_attend.device)
    constants = {
        "lvl_1L": model.scale_of[None],
        "attn_bias_for_masking": bias.masked_fill(~model.may_attend, float("-inf"))[None, None],
    }
    for i, block in enumerate(model.blocks):
        constants[f"blocks.{i}.attn.zero_k_bias"] = torch.zeros_like(block.attn.q_bias)
    return constants


def _filled(model: Any, state: Mapping[str, Tensor]) -> Any:
    learned, constants = _learned(model), _constants(model)
    wanted = learned | {name: value for name, value in constants.items() if name in state}
    problems = list(_depth_problem(model, state)) + differences(wanted, state)
    if not problems:
        problems = [
            f"{name} has other values than these arguments give"
            for name, value in constants.items()
            if name in state and not torch.equal(state[name].to(value), value)
        ]
    if problems:
        raise ValueError("the checkpoint does not fit the arguments: " + "; ".join(problems))
    with torch.no_grad():
        for name, ours in learned.items():
            ours.copy_(state[name])
    return model


def _depth_problem(model: VQVAE | VAR, state: Mapping[str, Tensor]) -> Iterator[str]:
    if isinstance(model, VAR):
        depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        if depth != len(model.blocks):
            yield f"its depth is {depth} instead of {len(model.blocks)}"
        vocab = len(state.get("head.bias", model.head.bias))
        if vocab != model.vocab:
            yield f"its vocabulary is {vocab}, the tokenizer's {model.vocab}"


def _arguments(arguments: Arguments) -> Mapping[str, Any]:
    if not isinstance(arguments, str):
        return arguments
    if arguments not in PRESETS:
        raise ValueError(f"arguments must be a mapping or among {', '.join(PRESETS)}, not {arguments!r}")
    return PRESETS[arguments]


def _translated(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    unknown = [name for name in given if name not in names and name not in _IGNORED]
    if unknown:
        raise ValueError(f"unknown arguments {', '.join(unknown)}; known are {', '.join(names)}")
    return {names[name]: value for name, value in given.items() if name in names}


def _multipliers(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[int]:
    widths: list[int] = []
    while (name := f"encoder.down.{len(widths)}.block.0.conv2.bias") in state:
        widths.append(len(state[name]))
    return [width // given.get("ch", 160) for width in widths] or [1, 1, 2, 2, 4]


def _vqvae_name(model: Any, name: str) -> str | None:
    if name == "quantizer.hit_updates":
        return None  # the official code counts from zero after each start
    if name.startswith("quantizer.phis."):
        shared = {0: "quant_resi.{}", 1: "quant_resi.qresi"}.get(model.quantizer.phi_count, "quant_resi.qresi_ls.{}")
        _, _, number, rest = name.split(".")
        return f"quantize.{shared.format(number)}.{rest}"
    name = name.replace("quantizer.hits", "quantize.ema_vocab_hit_SV").replace(
        "quantizer.codebook", "quantize.embedding"
    )
    sampler = "downsample" if name.startswith("encoder") else "upsample"
    return name.replace("shortcut", "nin_shortcut").replace("resample.1", f"{sampler}.conv")


def _var_name(model: Any, name: str) -> str | None:
    for ours, official in _VAR_NAMES.items():
        name = re.sub(ours, official, name)
    return name
