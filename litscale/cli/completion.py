"""``litscale completion``: a script that completes the command line of a shell.

The script is fixed when it is written: completing by the parser itself, as argcomplete does, would import torch and all
classes at each key, and listing the options of all classes, as shtab does, takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

from litscale.cli.config_files import PACKAGED
from litscale.cli.errors import CommandParser
from litscale.cli.help_text import COMMON_TRAINER_OPTIONS, OTHER_OPTIONS
from litscale.cli.main import COMMANDS, OWN_OPTIONS

SHELLS = ("bash", "zsh")
BASH = r"""_litscale() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "%(commands)s" -- "$current"))
  elif [[ $COMP_CWORD -eq 2 && $previous == bench ]]; then
    COMPREPLY=($(compgen -W "%(benchmarks)s" -- "$current"))
  elif [[ $previous == --config || $previous == -c ]]; then
    COMPREPLY=($(compgen -W "%(configs)s" -- "$current") $(compgen -f -- "$current"))
  elif [[ $previous == --ckpt_path ]]; then
    COMPREPLY=($(compgen -W "last best auto" -- "$current") $(compgen -f -- "$current"))
  elif [[ $current == -* && " %(configured)s " == *" ${COMP_WORDS[1]} "* ]]; then
    COMPREPLY=($(compgen -W "%(options)s" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _litscale litscale
"""
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def script(shell: str) -> str:
    """Return the completion script of a shell, ``bash`` or ``zsh``."""
    trainer = [f"trainer.{name}" for name in COMMON_TRAINER_OPTIONS]
    commands = list(dict.fromkeys(command.split()[0] for command in COMMANDS))
    words = {
        "commands": commands,
        "benchmarks": [command.removeprefix("bench ") for command in COMMANDS if command.startswith("bench ")],
        "configs": sorted(path.relative_to(PACKAGED).as_posix() for path in PACKAGED.rglob("*.yaml")),
        "configured": [command for command in commands if command not in OWN_OPTIONS],
        "options": [f"--{name}" for name in (*OTHER_OPTIONS, *trainer)],
    }
    filled = BASH % {name: " ".join(values) for name, values in words.items()}
    return filled if shell == "bash" else ZSH + filled


def main(words: Sequence[str]) -> None:
    """Print the completion script of a shell.

    Args:
        words: the words after ``litscale completion``.
    """
    parser = CommandParser("litscale completion", description="Print a script that completes commands in a shell.")
    parser.add_argument("shell", choices=SHELLS, help="the shell that you use")
    print(script(parser.parse_args(words).shell), end="")
