"""The help of commands that are LightningCLIs, on a few screens."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence

COMMON_TRAINER_OPTIONS = {
    "max_steps": "end after this many optimiser steps",
    "max_epochs": "end after this many epochs",
    "max_time": "end after this time, as DD:HH:MM:SS",
    "default_root_dir": "the run folder, which gets all results",
    "accelerator": "cpu, gpu or auto",
    "devices": "number of devices of a machine, or auto",
    "num_nodes": "number of machines",
    "strategy": "auto, ddp or the class of a strategy",
    "precision": "32-true, bf16-mixed, 16-mixed, bf16-true or 16-true",
    "logger": "class of a logger, or false for none",
    "callbacks": "classes of callbacks; --trainer.callbacks+=CLASS adds one",
    "check_val_every_n_epoch": "number of epochs between validations",
    "val_check_interval": "validate after this many batches, or this share of an epoch",
    "limit_train_batches": "use this many batches of an epoch, or this share of them",
    "limit_val_batches": "use this many batches in validation, or this share of them",
    "log_every_n_steps": "number of steps between logged values",
    "accumulate_grad_batches": "add the gradients of this many batches for one step",
    "gradient_clip_val": "clip the norm of the gradients to this value",
    "fast_dev_run": "true: run one batch of each stage, and write nothing",
}
ONLY_FIT = {"max_steps", "max_epochs", "max_time", "check_val_every_n_epoch", "val_check_interval"}
ONLY_FIT |= {"limit_train_batches", "log_every_n_steps", "accumulate_grad_batches", "gradient_clip_val"}
"""Options of the trainer that have no effect on other commands."""
BENCH_TRAINER_OPTIONS = {
    **{name: COMMON_TRAINER_OPTIONS[name] for name in ("default_root_dir", "accelerator", "precision")},
    "devices": "1, since a benchmark runs on one device",
}
OTHER_OPTIONS = {
    "config": "a config file, or the name of a packaged one; later ones override earlier ones",
    "print_config": "show the resulting config and exit",
    "seed_everything": "the seed of all random numbers",
    "help": "show this help",
    "help_all": "show all options, with types and defaults",
    "model": "class of the model; --model.NAME VALUE sets one of its options",
    "data": "class of the data module; --data.NAME VALUE sets one of its options",
    "model.pretrained": "a folder of litscale export, or the name of a model that comes with litscale, which gives "
    "model, data and weights",
    "ckpt_path": "path of a checkpoint, last or best",
    "verbose": "print the scores",
    "weights": "run folder or file of a new training's weights",
}
RESUMED = "path of the checkpoint to resume from, last, best, or auto for the newest that can be read"
HIDDEN = ("trainer", "checkpoints", "weights_only", "checkpoints.overwrite")
"""Options that read a group from a file, and options that no user sets."""
GROUPS = {"model": "Model and data", "data": "Model and data", "trainer": "Trainer", "checkpoints": "Checkpoints"}
OWN = "Command"  # the group of the other options
INDENT = 31  # columns before the explanations


def short_help(command: str, description: str, actions: Iterable[argparse.Action], width: int) -> str:
    """Return the help of a command, with its options in groups and one or a few lines for each option.

    Args:
        command: the words of the command, such as ``litscale fit``.
        description: what the command does.
        actions: the actions of its parser.
        width: number of columns of the terminal.
    """
    fitting, benchmark = command.endswith(" fit"), " bench " in command
    trainer, texts = COMMON_TRAINER_OPTIONS, OTHER_OPTIONS
    if fitting:
        texts = texts | {"ckpt_path": RESUMED}
    elif benchmark:  # each of which says itself what its checkpoint is for
        trainer, texts = BENCH_TRAINER_OPTIONS, {name: text for name, text in texts.items() if name != "ckpt_path"}
    else:
        trainer = {name: text for name, text in trainer.items() if name not in ONLY_FIT}
    groups: dict[str, list[str]] = {OWN: [], "Model and data": [], "Trainer": [], "Checkpoints": []}
    rare = []
    for action in actions:
        first, _, last = action.dest.partition(".")
        if action.help == argparse.SUPPRESS or not action.option_strings or action.dest.endswith(".help"):
            continue
        if action.dest in HIDDEN or (first == "checkpoints" and not fitting):
            continue
        if first == "trainer" and last not in trainer:
            rare += [last] if last not in COMMON_TRAINER_OPTIONS else []
            continue
        text = trainer[last] if first == "trainer" else texts.get(action.dest, action.help or "")
        groups[GROUPS.get(first, OWN)] += _option(action, text, width)
    groups["Model and data"] += _wrapped(
        "More options: --model.help CLASS and --data.help CLASS, such as --model.help LitFractal", width, 2
    )
    if not fitting:
        # no option of the parser, see `litscale.cli.words.with_exported`
        text = f"--model.pretrained takes {OTHER_OPTIONS['model.pretrained']}"
        groups["Model and data"] += _wrapped(text, width, 2)
    if not benchmark:
        groups["Trainer"] += _wrapped(f"Other options of Lightning's Trainer: {', '.join(rare)}", width, 2)
    lines = [f"usage: {command} --config CONFIG [--OPTION VALUE ...]", "", *_wrapped(description, width, 0)]
    for title, body in groups.items():
        lines += ["", f"{title}:", *body] if body else []
    return "\n".join(lines) + "\n"


def _option(action: argparse.Action, text: str, width: int) -> list[str]:
    """Return the lines of help on an option; a long name has a line of its own."""
    head = "  " + ", ".join(name for name in action.option_strings if not name.endswith("+"))
    body = _wrapped(text.replace("``", ""), width, INDENT)
    if len(head) < INDENT - 1 and body:
        return [head.ljust(INDENT) + body[0].lstrip(), *body[1:]]
    return [head, *body]


def _wrapped(text: str, width: int, indent: int) -> Sequence[str]:
    space = " " * indent
    return textwrap.wrap(" ".join(text.split()), width - 1, initial_indent=space, subsequent_indent=space)
