"""What Weights & Biases is told of a run: its name, its tags and the commit of the code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from litscale.storage.provenance import code_of


def describe_run(arguments: Any, config: Namespace) -> None:
    """Name a run after its folder and tag it with its classes, unless the logger or the environment says otherwise.

    Args:
        arguments: arguments of the ``WandbLogger``; ``name`` and ``tags`` are set if they are empty.
        config: the options of the command.
    """
    if "WANDB_NAME" not in os.environ:
        arguments["name"] = arguments.get("name") or Path(config.trainer.default_root_dir).resolve().name
    if "WANDB_TAGS" not in os.environ:
        arguments["tags"] = arguments.get("tags") or _class_names(config)


def name_commit() -> None:
    """Tell W&B the commit of our code if it cannot find it, because the working directory is no repository."""
    (here, *_), (ours, *_) = code_of(Path.cwd()), code_of(Path(__file__).parent)
    if ours.known and not here.known:
        os.environ.setdefault("WANDB_GIT_COMMIT", ours.commit)


def _class_names(config: Namespace) -> list[str]:
    """Return the names of the module's class, of the classes given to it, and of the data module's class."""
    options = vars(config.model.get("init_args", Namespace())).values()
    chosen = [config.model, *options, config.get("data")]
    paths = [each.class_path for each in chosen if isinstance(each, Namespace) and "class_path" in each]
    return list(dict.fromkeys(path.rsplit(".", 1)[-1] for path in paths))
