"""The networks of other runs that a fractal model works with: the teacher that distils it, the draft that guesses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from lit_models.runs import kept_checkpoint, load_run
from litscale.models.fractal import Fractal


def load_companion(option: str, path: str, check: Callable[[Fractal], None]) -> Fractal:
    """Load the network of another run.

    Args:
        option: The option by which it was given, for messages.
        path: A run folder, of which the best checkpoint is taken, or the last one where no best is kept; or a
            checkpoint in the folder ``checkpoints`` of one. The folder's config.yaml says which network it is of.
        check: Raises a ValueError if the network does not fit.

    Returns:
        The network in evaluation mode, frozen, on the CPU.

    Raises:
        FileNotFoundError: there is no such file, or it is not in a run folder.
        ValueError: the run cannot be read, is of another kind of network, or does not fit.
    """
    given = Path(path)
    if given.is_dir():
        folder, checkpoint = given, kept_checkpoint(given)
    else:
        folder, checkpoint = given.resolve().parent.parent, path
    try:
        if not given.exists():
            raise FileNotFoundError("no such file")
        with torch.random.fork_rng(devices=[]):  # which initial weights are drawn from
            module = load_run(folder, checkpoint)
        network = dict(module.named_children()).get("network")
        if not isinstance(network, Fractal):
            raise ValueError(f"it is a {type(module).__name__} without a network of litscale.models.fractal.Fractal")
        check(network)
    except (FileNotFoundError, ValueError) as error:
        # What says that the file is damaged names it.
        where = option if given.is_file() and path in str(error) else f"{option} {path}"
        raise type(error)(
            f"{where}: {error}. Give a run folder with its config.yaml, or FOLDER/checkpoints/NAME.ckpt in one, of a "
            "network with the options of this one except widths, blocks, heads, positions and dropout"
        ) from error
    return network.requires_grad_(False)
