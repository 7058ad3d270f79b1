"""The command line of ``litscale export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litscale.cli.errors import CommandParser
from litscale.cli.export.exporter import DTYPES, export_run
from litscale.storage.run_folders import EXPORT

DESCRIPTION = """Write the model of a run as a folder to share: model.safetensors, config.yaml and README.md.

The method from_pretrained(FOLDER) of its class, such as LitFractal, loads it. If the run averages weights, the
averaged ones are exported. Nothing is uploaded."""


def main(words: Sequence[str]) -> None:
    """Export the model of a run.

    Args:
        words: the words after ``litscale export``.
    """
    parser = CommandParser("litscale export", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run folder (trainer.default_root_dir)")
    parser.add_argument("--folder", type=Path, help=f"the folder to write; by default RUN/{EXPORT}")
    parser.add_argument("--checkpoint", help="best, last or a path; by default best, or last if the run keeps no best")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="dtype of the weights; tokenizers stay in float32"
    )
    parser.add_argument(
        "--official", action="store_true", help="also write the weights in the layout of the official code"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in the folder")
    given = parser.parse_args(words)
    folder = given.folder or given.run / EXPORT
    try:
        files = export_run(
            given.run,
            folder,
            checkpoint=given.checkpoint,
            dtype=given.dtype,
            official=given.official,
            overwrite=given.overwrite,
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print("\n".join(["Wrote", *(f"  {file}" for file in files)]))
