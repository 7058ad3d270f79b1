"""Errors as a user meets them: one line on the terminal, a status, and a traceback only where it helps."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

WRONG_USE, FAILURE, CTRL_C = 2, 1, 130  # statuses of the process
INTERRUPTED = "interrupted by Ctrl-C"
DEBUG = "LITSCALE_DEBUG"
TRACEBACK = "traceback.txt"
_OURS = ("litscale", "lit_models", "datamodules", "callbacks")
_WRONG_USE = (ValueError, TypeError, ImportError, FileNotFoundError, FileExistsError, NotADirectoryError)
_FAILURES = (OSError, RuntimeError, FloatingPointError)
_OF_WORKER = "Traceback (most recent call last)"  # in the message of an error that a worker has raised
_RAISED = re.compile(r'^ *File "(.+)", line \d+, in .+\n *raise ', re.MULTILINE)
_KIND = re.compile(r"^[\w.]+: ")
_NUMBER = re.compile(r"^\[Errno \d+\] ")  # with which Python begins what the system says
_run_folder: list[Path] = []  # where a traceback is kept, once it is known


class _Paragraphs(argparse.HelpFormatter):
    """Formats help whose descriptions may have several paragraphs; each is wrapped to the width of the terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
        return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs)


class CommandParser(argparse.ArgumentParser):
    """A parser of the commands that are not LightningCLIs. Its errors are one line, without the usage.

    Args:
        name: the words of the command.
        description: shown by ``--help``; an empty line separates paragraphs.
        usage: the first lines of the help; by default they list the options.
    """

    def __init__(self, name: str, description: str, usage: str | None = None) -> None:
        super().__init__(
            name,
            usage=usage,
            description=description,
            formatter_class=_Paragraphs,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """End the process with the message and the status of wrong use."""
        if message.startswith("unrecognized arguments: -"):
            from litscale.cli.messages import similar_option  # takes a while to import

            name = message.split()[2].partition("=")[0]
            message = f"{name}: there is no such option{similar_option(name, self._option_string_actions)}"
        end(self.prog, message, WRONG_USE)


def end(command: str, message: str, status: int) -> NoReturn:
    """End the process with one line on stderr, which names the rank if several processes run together.

    Args:
        command: the words of the command, such as ``litscale fit``.
        message: what went wrong, and what would be right.
        status: exit status of the process.
    """
    sys.stdout.flush()
    print(f"{command}{_rank()}: error: {_NUMBER.sub('', message)}", file=sys.stderr)
    sys.exit(status)


def debugging() -> bool:
    """Return whether tracebacks are requested, by ``--debug`` or ``LITSCALE_DEBUG=1``."""
    return os.environ.get(DEBUG, "") not in ("", "0", "false")


def take_debug_option(words: list[str]) -> None:
    """Remove ``--debug`` from the words of a command, and request tracebacks of this process and of its children."""
    if "--debug" in words:
        words.remove("--debug")
        os.environ[DEBUG] = "1"


def keep_traceback_in(folder: Path) -> None:
    """Set the folder to which the traceback of an unexpected error is written, if the folder exists at that time."""
    _run_folder[:] = [folder]


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Show any error of the block as one line, and end the process.

    The status is 2 if the command, its options or its files are wrong, 1 if something failed, and 130 after Ctrl-C.
    Expected are the usual errors that our own code raises, Lightning's about wrong options and the system's about a
    file. Any other error is unexpected: its traceback is kept in a file, which the line names.

    Args:
        command: the words of the command, such as ``litscale fit``.
    """
    try:
        yield
    except KeyboardInterrupt:
        end(command, INTERRUPTED, CTRL_C)
    except SystemExit as error:
        # Lightning ends the process with status 1 after Ctrl-C.
        if error.code == FAILURE and isinstance(error.__context__, KeyboardInterrupt):
            end(command, INTERRUPTED, CTRL_C)
        raise
    # Whatever it is, a user is told of it here.
    except Exception as error:
        if debugging():
            traceback.print_exception(error)
        status = _expected_status(error)
        message = _with_notes(error)
        if status is None:
            message = f"{type(error).__name__}: {message}" if message else type(error).__name__
            if not debugging():
                message += f" (unexpected; the traceback is in {_keep(error)}, and --debug shows it)"
        end(command, message, FAILURE if status is None else status)


def _expected_status(error: Exception) -> int | None:
    """Return the exit status of an expected error, whose message is all that a user needs; None for any other error."""
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which is not imported for this
        return WRONG_USE
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    package = str(innermost.f_globals.get("__name__", "")).partition(".")[0]
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    raised_here = (package in _OURS and line.startswith("raise ")) or _raised_by_worker(str(error))
    if raised_here and isinstance(error, _WRONG_USE):
        return WRONG_USE
    if raised_here and isinstance(error, _FAILURES):
        return FAILURE
    # The system's own errors name the file.
    return FAILURE if isinstance(error, OSError) and error.filename is not None else None


def _raised_by_worker(text: str) -> bool:
    """Return whether an error's message is the traceback of an error that our own code raised in a worker process."""
    *_, last = text.partition(_OF_WORKER)[2].rpartition("  File ")
    found = _RAISED.match(f"  File {last}")
    return found is not None and not set(Path(found[1]).parts).isdisjoint(_OURS)


def _with_notes(error: Exception) -> str:
    """Return the message of an error, with the notes that say where it happened."""
    text = str(error).strip()
    if _OF_WORKER in text:
        text = _KIND.sub("", text.splitlines()[-1])
    notes = [note for note in getattr(error, "__notes__", []) if note.strip() and note not in text]
    return text + (f" ({'; '.join(notes)})" if notes else "")


def _keep(error: Exception) -> Path:
    """Write the traceback to the run folder, or else to the folder of temporary files, and return its path."""
    from litscale.storage.files import write_atomically  # takes a while to import

    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    name = TRACEBACK if rank == "0" else f"{Path(TRACEBACK).stem}_rank_{rank}.txt"
    text = "".join(traceback.format_exception(error)).encode()
    for folder in _run_folder:
        if folder.is_dir():
            try:
                return write_atomically(folder / name, text)
            except OSError:
                break  # a full disk may be the very error
    handle, path = tempfile.mkstemp(prefix="litscale_", suffix=f"_{name}")
    os.write(handle, text)
    os.close(handle)
    return Path(path)


def _rank() -> str:
    """Return the rank of this process in brackets if several processes run together, or else an empty string."""
    several = any(os.environ.get(name, "1") != "1" for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    numbers = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    rank = next((number for number in numbers if number), "0")
    return f" [rank {rank}]" if several else ""
