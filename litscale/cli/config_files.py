"""Config files: where ``--config`` finds them, and the layers that a config names."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile

PACKAGED = Path(__file__).parents[1] / "configs"
EXAMPLE = "'{trainer.max_steps: 10}'"


class LayeredConfig(ActionConfigFile):
    """The action of ``--config``: a file of the working directory or of the package, over the layers that it names.

    ``layers: [../data/bach.yaml, ...]`` in a config means what ``--config`` for each of these files before the config
    itself would mean. Their paths are relative to the config, or to litscale's own configs.
    """

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Apply the layers and then the config, whose path alone is kept in the parsed options.

        Raises:
            TypeError: the config or a layer does not exist or holds no options; the parser prints the message.
        """
        given = list(cfg.get(self.dest) or ())
        found = find_config(values)
        _check_text(found)
        for path in with_layers(found):
            super().__call__(parser, cfg, path, option_string)
        cfg[self.dest] = [*given, cfg[self.dest][-1]]


def find_config(given: str) -> str:
    """Return the path of the file that ``--config`` means: in the working directory, or else a packaged config.

    Args:
        given: a path, with or without the leading ``configs/`` for a packaged config. A text that does not end like
            a YAML or JSON file, such as options as text, is returned unchanged, as is a URL.

    Raises:
        TypeError: neither exists; the message names packaged configs with similar names.
    """
    if Path(given).suffix not in (".yaml", ".yml", ".json") or "\n" in given or "://" in given or Path(given).is_file():
        return given
    name = given.removeprefix("configs/")
    if (PACKAGED / name).is_file():
        return str(PACKAGED / name)
    raise TypeError(f"--config {given}: there is no such file, and litscale has no config of this name{_similar(name)}")


def _check_text(given: str) -> None:
    """Refuse a value of ``--config`` that is neither a file, nor a URL, nor options as text.

    Raises:
        TypeError: the value is none of these.
    """
    if not given.startswith("{") and "\n" not in given and ("://" in given or Path(given).is_file()):
        return
    try:
        content = yaml.safe_load(given)
    except yaml.YAMLError as error:
        raise TypeError(f"--config {given} is neither a file nor YAML: {_problem(error)}") from error
    if not isinstance(content, dict):
        raise TypeError(f"--config {given}: there is no such file, and as text it names no option, as {EXAMPLE} does")


def _problem(error: Exception) -> str:
    """Return one line that says why a text is not YAML."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())


def _similar(name: str) -> str:
    """Return the end of a message that names packaged configs with a similar path or file name, if there are any."""
    names = {path.relative_to(PACKAGED).as_posix(): path.name for path in sorted(PACKAGED.rglob("*.yaml"))}
    files = difflib.get_close_matches(Path(name).name, set(names.values()))
    similar = difflib.get_close_matches(name, names) + [path for path, file in names.items() if file in files]
    return f"; similar ones: {', '.join(dict.fromkeys(similar))}" if similar else ""


def with_layers(path: str, above: tuple[Path, ...] = ()) -> list[str]:
    """Return the paths of a config's layers and of their layers, in the order in which they apply; the config is last.

    Args:
        path: path of the config; options as text and URLs have no layers.
        above: the configs that this one is a layer of.

    Raises:
        TypeError: a file is not YAML or holds no options, ``layers`` is not a list of existing files, or a config is a
            layer of itself.
    """
    file = Path(path)
    if "\n" in path or path.startswith("{") or not file.is_file():  # options as text may be too long for a path
        return [path]
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TypeError(f"{path} is not a YAML file: {_problem(error)}") from error
    if content is not None and not isinstance(content, dict):
        raise TypeError(f"{path} holds no options, as {EXAMPLE} does")
    layers = content.get("layers", []) if isinstance(content, dict) else []
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise TypeError(f"{path}: layers must be a list of files, not {layers!r}")
    below = [file.parent / layer if (file.parent / layer).is_file() else PACKAGED / layer for layer in layers]
    for given, layer in zip(layers, below, strict=True):
        if not layer.is_file():
            raise TypeError(
                f"{path}: its layer {given} is neither there, relative to the config, nor one of litscale's configs"
                f"{_similar(given)}"
            )
        if layer.resolve() in {each.resolve() for each in (*above, file)}:
            raise TypeError(f"{path}: its layer {layer} names this config as a layer itself")
    return [each for layer in below for each in with_layers(str(layer), (*above, file))] + [path]
