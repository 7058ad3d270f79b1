"""A small LitSDVAR for :class:`var_toys.ToyImages`, and checkpoints of its networks."""

from functools import partial

import torch
from var_toys import lit_var, quiet, vqvae

from lit_models import LitSDVAR, Optimization
from litscale.models.sdvar import Speculative
from litscale.models.var import VAR, VARGeneration

SIZES = {"draft": {"depth": 1, "width": 16, "heads": 2}, "target": {"depth": 2, "width": 16, "heads": 2}}


class Patches(torch.nn.Module):
    """An extractor: the means of four patches."""

    num_features = 4

    def forward(self, canvases):
        """float32 ``[B, 4]``."""
        return torch.nn.functional.adaptive_avg_pool2d(canvases.float(), 2).mean(1).flatten(1) / 100


def network(role, **options):
    """A maker of the draft or the target."""
    return partial(VAR, **{"num_classes": 3, **SIZES[role]} | options)


def lit_sdvar(tokenizer=None, spread=0.3, **options):
    """A small LitSDVAR whose networks have random weights; their heads are not flat, so that all tokens matter."""
    networks = {role: options.pop(role, network(role)) for role in ("draft", "target")}
    torch.manual_seed(1)
    module = LitSDVAR(tokenizer or vqvae(), **networks, **{"optimization": Optimization(lr=1e-2)} | options)
    for model in (module.draft, module.target):
        torch.nn.init.normal_(model.head.weight, std=spread)
    return module


def speculative(**options):
    """Arguments of LitSDVAR for speculative decoding without guidance."""
    return {"decoder": partial(Speculative, **options), "generation": VARGeneration(cfg=0.0)}


def lit_var_files(folder, tokenizers=None):
    """Checkpoints of LitVAR for both roles, ``draft.ckpt`` and ``target.ckpt``; by default with one tokenizer.

    Args:
        folder: of the files.
        tokenizers: for each role.
    """
    paths = {}
    for role, sizes in SIZES.items():
        module = lit_var(None if tokenizers is None else tokenizers[role], **sizes)
        trainer = quiet(folder)
        trainer.strategy.connect(module)
        paths[role] = str(folder / f"{role}.ckpt")
        trainer.save_checkpoint(paths[role])
    return paths
