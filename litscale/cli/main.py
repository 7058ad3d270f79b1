"""The ``litscale`` command, which tells its commands apart before it imports what takes seconds."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

from litscale.cli.errors import WRONG_USE, end, one_line_errors, take_debug_option
from litscale.cli.imports import prepare_imports
from litscale.version import __version__

COMMANDS = {
    "fit": "train a model, or continue a run (--ckpt_path last)",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data",
    "predict": "write files: generate, continue, fill in or reconstruct",
    "evaluate RUN": "evaluate all checkpoints of a run, also while it trains",
    "sweep SWEEP.yaml": "train with several sets of options, and compare them",
    "launch -- fit ...": "submit a command to SLURM, with a snapshot of the code",
    "compare RUN ...": "show the scores of several runs as one table",
    "report RUN ...": "write an HTML report on runs, or show it in a browser",
    "export RUN": "export a model to share: weights, config, model card",
    "completion bash": "print a script that completes commands in bash or zsh",
    "bench decode": "measure speed and quality of speculative decoding",
    "bench fractal": "compare training and sampling of AR and MAR networks",
    "bench costs": "time a call of each network, and compute the best gamma",
    "bench masks": "draw what each prefix mask hides",
}
OWN_OPTIONS = {
    "evaluate": "evaluate.command",
    "sweep": "sweep.command",
    "launch": "launch.command",
    "compare": "report.compare",
    "report": "report.command",
    "export": "export.command",
    "completion": "completion",
}
"""Commands that are no LightningCLI -> the module of `litscale.cli` whose ``main`` takes the words after them."""
_LINES = "\n".join(f"  {name:<17} {what}" for name, what in COMMANDS.items())
HELP = f"""usage: litscale COMMAND --config CONFIG [--config CONFIG ...] [--OPTION VALUE]

litscale trains, evaluates and samples hierarchical autoregressive generators
of piano rolls and images: fractal MAR and AR models, VAR with its tokenizer,
and speculative decoding of VAR.

commands:
{_LINES}

example: litscale fit --config demo.yaml

litscale COMMAND --help lists the options of a command. --print_config shows the
resulting config, --debug the traceback of an error, and litscale --version the
version. Options override configs, wherever they are in the command."""


def main(args: list[str] | None = None) -> None:
    """Run a command.

    Args:
        args: the words of the command. By default they are those that the process was started with, and an error is
            shown as one line and ends the process.

    Raises:
        Exception: any error of the command, if ``args`` are given.
    """
    if args is not None:
        run(args, args)
        return
    take_debug_option(sys.argv)
    words = sys.argv[1:]
    named = words[: 2 if words[:1] == ["bench"] else 1]
    with one_line_errors(" ".join(["litscale", *(word for word in named if not word.startswith("-"))])):
        run(words, None)


def run(words: list[str], args: list[str] | None) -> None:
    """Run a command, and let its errors pass to the caller.

    Args:
        words: the command and its options.
        args: the same words; None if the process was started with them.

    Raises:
        ImportError: another module would be imported in place of one of our packages.
    """
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return
    if words[0] in ("-V", "--version"):
        print(f"litscale {__version__}")
        return
    names = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    if words[0] not in names and not words[0].startswith("-"):
        similar = difflib.get_close_matches(words[0], names, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else f"; there are {', '.join(names)}"
        end("litscale", f"there is no command {words[0]}{hint}", WRONG_USE)
    prepare_imports()
    if words[0] in OWN_OPTIONS:
        import_module(f"litscale.cli.{OWN_OPTIONS[words[0]]}").main(words[1:])
        return
    from litscale.cli import lightning_cli

    if words[0] != "bench":
        lightning_cli.train_or_evaluate(args)
        return
    if args is None:
        del sys.argv[1]  # Lightning reads the rest there, and warns if it is given as args
    lightning_cli.bench(None if args is None else words[1:])
