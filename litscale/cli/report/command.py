"""The command line of ``litscale report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litscale.cli.errors import CommandParser
from litscale.cli.report.contents import Limits
from litscale.cli.report.page import METRICS, MOST_CURVES, Selection, report
from litscale.cli.report.server import Server
from litscale.storage.files import write_atomically
from litscale.storage.run_folders import REPORT

DESCRIPTION = """Write one HTML file on one or several runs, which needs no network and no other file. It shows a
summary, scores, curves, evaluations of checkpoints, tables, samples with sound, timelines of decoding, the manifest
and the config."""


def main(words: Sequence[str]) -> None:
    """Write a report, or show reports in the browser until the process is interrupted.

    Args:
        words: the words after ``litscale report``.
    """
    # 1. what to show, and how much of it
    parser = CommandParser("litscale report", DESCRIPTION)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; with --serve a folder of runs")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"the file to write; by default {REPORT} in the run folder, or here if there are several runs",
    )
    parser.add_argument("--samples", type=int, default=4, help="most samples from each folder (4)")
    parser.add_argument("--folders", type=int, default=4, help="most folders of samples, newest first (4)")
    parser.add_argument(
        "--metrics", nargs="+", default=METRICS, metavar="GLOB", help="metrics with a curve, such as 'val/*' (all)"
    )
    parser.add_argument("--curves", type=int, default=MOST_CURVES, help=f"most curves ({MOST_CURVES})")
    parser.add_argument("--serve", action="store_true", help="show the runs of a folder in the browser, on 127.0.0.1")
    parser.add_argument("--port", type=int, default=8765, help="port of --serve; 0 for any free port (8765)")
    given = parser.parse_args(words)
    # 2. what argparse cannot check
    for name in ("samples", "folders", "curves"):
        if vars(given)[name] < 0:
            parser.error(f"--{name} must not be negative, not {vars(given)[name]}")
    if not 0 <= given.port < 2**16:
        parser.error(f"--port must be a number from 0 to 65535, not {given.port}")
    # 3. show it or write it
    selection = Selection(Limits(given.samples, given.folders), given.metrics, given.curves)
    try:
        if given.serve:
            _serve(given.runs, given.port, selection)
            return
        out = given.out or (given.runs[0] / REPORT if len(given.runs) == 1 else Path(REPORT))
        page = report(given.runs, selection).encode()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        print(f"Wrote {write_atomically(out, page)}, {-(-len(page) // 1024)} KiB")
    except OSError as error:
        parser.error(f"--out {out}: {error.strerror}: give a file in a folder that exists")


def _serve(folders: Sequence[Path], port: int, selection: Selection) -> None:
    """Show the runs of a folder until the process is interrupted.

    Raises:
        ValueError: more than one folder is given.
        OSError: there is no such folder, or the port is taken.
    """
    if len(folders) != 1:
        raise ValueError("--serve shows one folder of runs: give one")
    if not folders[0].is_dir():
        raise FileNotFoundError(f"{folders[0]}: no such folder; give a folder of runs")
    try:
        server = Server(folders[0], port, selection)
    except OSError as error:
        raise OSError(error.errno, f"--port {port} cannot be used ({error.strerror}): give another") from error
    with server:
        print(f"Reports on the runs of {folders[0]} are at {server.address}; end with Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
