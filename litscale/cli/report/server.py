"""Reports in the browser: a page for the runs of a folder, on this machine only, which writes nothing."""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lit_models.runs import CONFIG
from litscale.cli.report.page import Selection, environment, report

HOST = "127.0.0.1"
NO_PAGE = "there is no such page or run"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def runs_of(folder: Path) -> dict[str, Path]:
    """Return name -> run for the runs in a folder, or for the folder if it is a run. Links out of it are ignored."""
    root = folder.resolve()
    found = [folder] if (folder / CONFIG).is_file() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    inside = [path for path in found if (path / CONFIG).resolve().is_relative_to(root)]
    return {path.resolve().name: path for path in inside}


class Server(ThreadingHTTPServer):
    """Shows reports on the runs of a folder; the runs are looked up by name, so no path leads elsewhere.

    Args:
        folder: folder of the runs.
        port: number of the port; 0 for any free port.
        selection: what reports show.
    """

    def __init__(self, folder: Path, port: int, selection: Selection) -> None:
        self.folder = folder
        limits = replace(selection.limits, root=folder.resolve())
        self.selection = replace(selection, limits=limits)
        super().__init__((HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless a browser only closed the connection before it had its page."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """The address of the server for a browser."""
        return f"http://{HOST}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the list of runs, ``/``, and for reports, ``/report?run=NAME&run=NAME``."""

    server: Server
    server_version, sys_version = "litscale", ""

    def do_GET(self) -> None:
        """Answer a request with a page."""
        self._answer(*self._page())

    def do_HEAD(self) -> None:
        """Answer a request with the headers of the page only."""
        self._answer(*self._page(), with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing, in place of a line for each request."""

    def _page(self) -> tuple[HTTPStatus, str]:
        """Return the status and the page for a request."""
        # A page of another site may have its own name lead to this machine, and then read what it is answered.
        if self.headers.get("Host", "") not in (
            f"{HOST}:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            return HTTPStatus.FORBIDDEN, _message("this server answers to 127.0.0.1 only")
        try:
            parts = urlsplit(self.path)
        except ValueError:  # half of an address
            return HTTPStatus.NOT_FOUND, _message(NO_PAGE)
        runs = runs_of(self.server.folder)
        if parts.path == "/" and not parts.query:
            return HTTPStatus.OK, self._index(runs)
        wanted = parse_qs(parts.query).get("run", [])
        if parts.path != "/report" or not wanted or not runs.keys() >= set(wanted):
            return HTTPStatus.NOT_FOUND, _message(NO_PAGE)
        try:
            return HTTPStatus.OK, report([runs[name] for name in wanted], self.server.selection)
        except (OSError, ValueError) as error:
            return HTTPStatus.INTERNAL_SERVER_ERROR, _message(str(error))

    def _index(self, runs: Mapping[str, Path]) -> str:
        return environment().get_template("index.html").render(runs=list(runs), folder=self.server.folder)

    def _answer(self, status: HTTPStatus, page: str, with_body: bool = True) -> None:
        content = page.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)


def _message(text: str) -> str:
    return f"<!doctype html><html lang=en><title>litscale</title><p>{html.escape(text)}</p></html>"
