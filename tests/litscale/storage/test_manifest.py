"""The manifest of a run folder: attempts, how they ended, and processes that are gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from litscale.storage import manifest as module
from litscale.storage.manifest import ManifestWriter, read_manifest
from litscale.storage.provenance import Code


def attempt_in_another_process(folder, then="time.sleep(60)"):
    """Begin an attempt in a process of its own, which is at work when this returns."""
    code = (
        "import sys, time; from pathlib import Path; from litscale.storage.manifest import ManifestWriter;"
        f"w = ManifestWriter(Path(sys.argv[1]), {{'command': ['x']}}, devices=4); print('on', flush=True); {then}"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_an_attempt_runs_and_ends(tmp_path):
    writer = ManifestWriter(tmp_path, {"command": ["litscale", "fit"]}, devices=8)
    found = read_manifest(tmp_path)
    assert (found.status, found.ended, found.attempts[0]["end"]) == ("running", False, None)
    assert found.attempts[0]["process"]["host"] == socket.gethostname()
    time.sleep(0.2)
    writer.end("failed", "ValueError: x", step=7)
    found = read_manifest(tmp_path)
    (attempt,) = found.attempts
    assert (found.status, found.ended, attempt["reason"], attempt["step"]) == ("failed", True, "ValueError: x", 7)
    assert attempt["command"] == ["litscale", "fit"]
    assert 0.2 <= attempt["wall_hours"] * 3600 < 60
    assert attempt["device_hours"] == 8 * attempt["wall_hours"]


def test_a_killed_process_is_known_at_once_and_settled_by_the_next_attempt(tmp_path):
    process = attempt_in_another_process(tmp_path)
    assert not read_manifest(tmp_path).ended
    process.kill()
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is None:
        pass
    assert read_manifest(tmp_path).ended  # although nobody has asked yet how it ended
    process.wait()
    process.stdout.close()
    found = read_manifest(tmp_path)
    assert (found.status, found.ended) == ("running", True)
    os.utime(tmp_path / "manifest.json", (0, found.heartbeat + 3600))
    ManifestWriter(tmp_path, {"command": ["y"]}).end("finished")
    killed, finished = read_manifest(tmp_path).attempts
    assert (killed["status"], killed["command"], finished["status"]) == ("interrupted", ["x"], "finished")
    assert killed["reason"] == "killed; the end is the last heartbeat"
    assert killed["wall_hours"] == pytest.approx(1, rel=0.01)
    assert killed["device_hours"] == pytest.approx(4, rel=0.01)


def test_the_number_of_a_gone_process_may_be_another_s(tmp_path):
    ManifestWriter(tmp_path, {})
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["attempts"][0]["process"]["started"] = "1"  # this process has its number, but began at another time
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert read_manifest(tmp_path).ended


def test_of_another_machine_the_heartbeat_decides(tmp_path, monkeypatch):
    process = attempt_in_another_process(tmp_path)
    process.kill()
    process.communicate()
    monkeypatch.setattr(module, "_boot", lambda: "another")
    assert not read_manifest(tmp_path).ended
    os.utime(tmp_path / "manifest.json", (0, time.time() - module.SILENCE + 60))
    assert not read_manifest(tmp_path).ended
    os.utime(tmp_path / "manifest.json", (0, time.time() - module.SILENCE - 1))
    assert read_manifest(tmp_path).ended


def test_the_heart_beats_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    writer = ManifestWriter(tmp_path, {})
    os.utime(tmp_path / "manifest.json", (0, 0))
    deadline = time.monotonic() + 30
    while read_manifest(tmp_path).heartbeat == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert read_manifest(tmp_path).heartbeat > 0
    writer.end("finished")
    time.sleep(0.1)
    os.utime(tmp_path / "manifest.json", (0, 0))
    time.sleep(0.1)
    assert read_manifest(tmp_path).heartbeat == 0


def test_diffs_are_files_that_equal_ones_share(tmp_path):
    code = Code("/code", "abc", b"-x\n+y\n", new_files=("new.py",))
    for diff in (b"-x\n+y\n", b"-x\n+y\n", b"-x\n+z\n"):
        writer = ManifestWriter(tmp_path, {}, [code, Code("/other", "def", diff)])
        writer.end("finished")
    first, _, third = read_manifest(tmp_path).attempts
    assert first["code"][0]["diff"] == first["code"][1]["diff"] == third["code"][0]["diff"]
    assert (tmp_path / third["code"][1]["diff"]).read_bytes() == b"-x\n+z\n"
    assert first["code"][0]["new_files"] == ["new.py"]
    assert len(list(tmp_path.glob("manifest_*.diff"))) == 2
    writer = ManifestWriter(tmp_path, {}, [Code("/code", "abc")])
    writer.forget_earlier()
    assert [attempt["code"][0]["diff"] for attempt in read_manifest(tmp_path).attempts] == [None]
    assert not list(tmp_path.glob("manifest_*.diff"))


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path)
    whole = {"status": "running", "start": "2026-01-01T00:00:00+00:00", "process": {"host": "a", "id": 1, "boot": None}}
    lists = [[], [whole], [{"status": "asleep", "process": {}}]]
    for text in ("{", "[]", *(json.dumps({"attempts": attempts}) for attempts in lists)):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: damaged"):
            read_manifest(tmp_path)
    ManifestWriter(tmp_path, {}).end("finished")  # a run goes on, and keeps the file
    assert len(read_manifest(tmp_path).attempts) == 1
    assert "asleep" in (tmp_path / "manifest.json.damaged").read_text()


def test_reading_needs_no_torch():
    code = "import sys, litscale.storage.manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_signal_that_ends_the_process_leaves_a_running_attempt(tmp_path):
    process = attempt_in_another_process(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert (read_manifest(tmp_path).status, read_manifest(tmp_path).ended) == ("running", True)
