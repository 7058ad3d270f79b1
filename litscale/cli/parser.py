"""The parser of the commands that are LightningCLIs."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import traceback
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from litscale.cli.errors import WRONG_USE, debugging, end
from litscale.cli.help_text import short_help
from litscale.cli.imports import passed_over
from litscale.cli.messages import UNKNOWN, in_one_line, similar_option
from litscale.cli.words import as_options, configs_first, with_exported


class _Options(DefaultHelpFormatter):
    """Help as jsonargparse writes it, with titles that fit the terminal and without the options ``NAME+``."""

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options, and wrap its title, which is the first line of a class' docstring."""
        super().start_section(heading and textwrap.fill(heading, self._width))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        parts = super()._format_action_invocation(action).split(", ")
        return ", ".join(part for part in parts if not part.partition(" ")[0].endswith("+"))


class HelpAll(argparse.Action):
    """The action of ``--help_all``, which shows the help of jsonargparse with all options, types and defaults."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs=0, **kwargs)

    def __call__(self, parser: Any, *args: Any, **kwargs: Any) -> None:
        """Print the help and end the process."""
        parser.command = None
        parser.print_help()
        parser.exit()


class Parser(LightningArgumentParser):
    """A parser whose errors are one line, and that takes W&B's arguments, and configs after options.

    jsonargparse makes parsers of the same class for the arguments of models, data, callbacks and their parts.
    """

    command: str | None = None  # the words of the command that has a short help
    _inner_parser = False  # jsonargparse sets it where the options are those of a class
    _words: tuple[str, ...] = ()  # of the command line

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The start of an option would be taken for the option, and a misspelled one for another.
        super().__init__(*args, **{"formatter_class": _Options, "allow_abbrev": False, **kwargs})

    def parse_args(self, args: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Parse the words that `as_options`, `with_exported` and `configs_first` make of the given ones."""
        words = configs_first(with_exported(as_options(sys.argv[1:] if args is None else args)))
        self._words = tuple(words)
        return super().parse_args(words, **kwargs)

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Check values, and suggest an option for one that does not exist.

        Raises:
            KeyError: there is no such option.
            TypeError: a value is of another type.
        """
        try:
            super().validate(namespace, *args, **kwargs)
        except KeyError as error:
            text = str(error)
            if "did you mean" in text:  # of a parser below this one
                raise
            found = UNKNOWN.match(text)
            option = ".".join(part for part in found.groups()[:2] if part) if found else ""
            raise type(error)(text + similar_option(option, [action.dest for action in self._actions])) from error

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the short help of a command, and any other help as jsonargparse writes it."""
        if self._inner_parser:  # there is no command line of these options alone
            self.usage = argparse.SUPPRESS
        if self.command is None:
            return super().format_help(formatter)
        return short_help(self.command, self.description or "", self._actions, shutil.get_terminal_size().columns)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the process with one line, or raise the error if this parser is part of another."""
        if message.startswith("unrecognized arguments: -"):
            name = message.split()[2].partition("=")[0]
            message += similar_option(name, self._option_string_actions)
        if not self.exit_on_error:
            raise argparse.ArgumentError(None, message) from ex
        if ex is not None and debugging():
            traceback.print_exception(ex)
        end(
            self.command or self.prog.replace(" [options]", ""),
            in_one_line(message, self._words) + passed_over(message),
            WRONG_USE,
        )
