"""``litscale report --serve``: on this machine only, nothing is written, and nothing of elsewhere is shown."""

import http.client
import io
import shutil
import threading

import pytest

from litscale.cli.report.contents import Limits
from litscale.cli.report.page import Selection
from litscale.cli.report.server import Handler, Server, runs_of


@pytest.fixture
def served(tmp_path, make_run):
    """The folder of two runs, and a function that asks the server for a path."""
    folder = tmp_path / "runs"
    for name in ("one", "two & <b>"):
        make_run(name, folder=folder)
    make_run("secret")  # beside the folder, not in it
    (folder / "no_run").mkdir()
    server = Server(folder, 0, Selection(Limits(samples=1)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=240)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer, text

    yield folder, ask, server
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_lists_and_shows_runs_and_writes_nothing(served):
    folder, ask, server = served
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert server.server_address[0] == "127.0.0.1"
    answer, text = ask("/")
    assert answer.status == 200
    assert answer.getheader("Content-Security-Policy").startswith("default-src 'none'")
    assert 'href="/report?run=two%20%26%20%3Cb%3E"' in text
    assert "two &amp; &lt;b&gt;" in text
    assert "no_run" not in text
    assert "secret" not in text
    answer, text = ask("/report?run=one&run=two%20%26%20%3Cb%3E")
    assert answer.status == 200
    assert "<title>one, two &amp; &lt;b&gt;: litscale report</title>" in text
    answer, text = ask("/", method="HEAD")
    assert (answer.status, text) == (200, "")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/report?run=../secret",
        "/report?run=..%2Fsecret",
        "/report?run=one%2F..%2F..%2Fsecret",
        "/report?run=%2Fetc",
        "/report?run=one&run=..%2Fsecret",
        "/report?run=",
        "/report",
        "/one/config.yaml",
        "/one",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/report?run=no_run",
        "/report?run=one%00",
        "x://[",
    ],
)
def test_no_path_escapes_the_folder(served, path):
    answer, text = served[1](path)
    assert answer.status == 404
    assert "there is no such page or run" in text


def test_links_out_of_the_folder_are_passed_over(served, tmp_path):
    folder, ask, _ = served
    (folder / "link").symlink_to(tmp_path / "secret")
    assert "link" not in runs_of(folder)
    assert "secret" not in runs_of(folder)
    assert ask("/report?run=secret")[0].status == 404
    # nor does a report show files that a run's links lead to
    shutil.rmtree(folder / "one" / "predictions")
    (folder / "one" / "predictions").symlink_to(tmp_path / "secret" / "predictions")
    assert "samples_seed_1" not in ask("/report?run=one")[1]
    (folder / "one" / "manifest.json").unlink()
    (folder / "one" / "manifest.json").symlink_to(tmp_path / "secret" / "manifest.json")
    assert "0123abcd" not in ask("/report?run=one")[1]


def test_others_are_refused(served):
    _, ask, server = served
    assert ask("/", Host="evil.example:80")[0].status == 403
    assert ask("/", Host=f"localhost:{server.server_port}")[0].status == 200
    assert ask("/", method="POST")[0].status == 501
    assert ask("/", method="PUT")[0].status == 501


def test_a_browser_that_goes_away_is_no_error(served, monkeypatch, capfd):
    _, ask, server = served

    class Gone(io.BytesIO):
        def write(self, content):
            raise BrokenPipeError

    monkeypatch.setattr(Handler, "setup", lambda handler: vars(handler).update(rfile=request, wfile=Gone()))
    request = io.BytesIO(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
    with pytest.raises(http.client.RemoteDisconnected):
        ask("/")
    assert request.closed  # it was served
    assert capfd.readouterr().err == ""


def test_a_damaged_run_is_an_error_of_its_page(served):
    folder, ask, _ = served
    (folder / "one" / "manifest.json").write_text("{<i>")
    answer, text = ask("/report?run=one")
    assert answer.status == 500
    assert "manifest.json: damaged" in text
    assert "<i>" not in text
    assert ask("/")[0].status == 200


def test_the_folder_may_be_a_run(make_run):
    run = make_run("alone", full=False)
    assert runs_of(run) == {"alone": run}
