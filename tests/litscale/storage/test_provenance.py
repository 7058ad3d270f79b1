"""The code of a run: repositories of its own, and folders that are none."""

import subprocess
import sys

import pytest

from litscale.storage import provenance
from litscale.storage.provenance import code_of, describe_run, masked_command, slurm_job


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def repository(folder):
    folder.mkdir()
    git(folder, "init")
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("runs\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return git(folder, "rev-parse", "HEAD").strip()


def test_commit_diff_and_new_files(tmp_path):
    commit = repository(tmp_path / "code")
    (tmp_path / "code" / "runs").mkdir()
    (tmp_path / "code" / "runs" / "ignored").touch()
    (tmp_path / "code" / "new.py").touch()
    (tmp_path / "code" / "code.py").write_text('x = 2\npassword = "abc"\n')
    (code,) = code_of(tmp_path / "code" / "runs", tmp_path / "code", tmp_path)
    assert (code.folder, code.commit, code.new_files) == (str(tmp_path / "code"), commit, ("new.py",))
    assert b"-x = 1\n+x = 2\n+password = ***" in code.diff
    assert not code.cut


def test_a_diff_is_cut_and_no_repository_is_said(tmp_path, monkeypatch):
    repository(tmp_path / "code")
    (tmp_path / "code" / "code.py").write_text("x = 2\n" * 1000)
    monkeypatch.setattr(provenance, "MOST_DIFF", 1000)
    (code,) = code_of(tmp_path / "code")
    assert (len(code.diff), code.cut) == (1000, True)
    (tmp_path / "plain").mkdir()
    assert [code.commit for code in code_of(tmp_path / "plain", tmp_path)] == ["not a repository"]


def test_a_repository_without_a_commit_says_why(tmp_path):
    git(tmp_path, "init")
    (code,) = code_of(tmp_path)
    assert code.commit.startswith("fatal: ")


@pytest.mark.parametrize("program", ["/usr/bin/litscale", "/usr/lib/litscale/__main__.py"])
def test_the_command(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "fit", "--x.token", "abc"])
    assert masked_command() == ["litscale", "fit", "--x.token", "***"]


def test_of_the_environment_only_the_job_is_recorded(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "abcabc")
    monkeypatch.setenv("SLURM_JWT", "abcabc")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found = describe_run()
    assert found["slurm"]["SLURM_JOB_ID"] == "17"
    assert "abcabc" not in str(found)
    assert found["packages"]["numpy"]
    assert slurm_job({"HOME": "/"}) == {}
