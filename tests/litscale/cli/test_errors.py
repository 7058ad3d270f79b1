"""Errors of the command line are one line, with a status; unexpected ones keep their traceback in a file."""

import signal
import sys

import pytest
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader, Dataset

from litscale.cli import errors
from litscale.cli.main import main
from litscale.storage.files import read_json


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """As a process that is started alone, without options of others."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(errors.DEBUG, "")
    monkeypatch.setattr(errors, "_run_folder", [])


def ended(fail):
    """The status with which an error ends the process."""
    with pytest.raises(SystemExit) as stop, errors.one_line_errors("litscale fit"):
        fail()
    return stop.value.code


def start(monkeypatch, *words):
    """Run the command as a process that was started with these words; returns its status."""
    monkeypatch.setattr(sys, "argv", ["litscale", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_an_error_of_ours_is_one_line(tmp_path, capsys):
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    assert ended(lambda: read_json(damaged)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"litscale fit: error: {damaged}: damaged, or no JSON (")
    assert error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_a_failure(tmp_path, capsys):
    assert ended(lambda: (tmp_path / "gone" / "file").write_text("")) == 1
    path = tmp_path / "gone" / "file"
    assert capsys.readouterr().err == f"litscale fit: error: No such file or directory: '{path}'\n"


class Items(Dataset):
    """Items that a worker cannot make: one as our code says, one as it does not."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return read_json(self.path) if self.path else 1 // index


def test_an_error_of_a_worker_is_told_as_if_there_were_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(errors.tempfile, "tempdir", str(tmp_path))
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    assert ended(lambda: list(DataLoader(Items(damaged), num_workers=1))) == 2
    assert capsys.readouterr().err.startswith(f"litscale fit: error: {damaged}: damaged, or no JSON (")
    assert ended(lambda: list(DataLoader(Items(None), num_workers=1))) == 1
    line = "litscale fit: error: ZeroDivisionError: integer division or modulo by zero (unexpected; the traceback is in"
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("folder", ["run", "missing"])
def test_the_traceback_of_an_unexpected_error_is_kept(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(errors.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "run").mkdir()
    errors.keep_traceback_in(tmp_path / folder)
    assert ended(lambda: 1 / 0) == 1
    (kept,) = tmp_path.rglob("*traceback.txt")
    assert (kept.parent == tmp_path / "run") == (folder == "run")
    line = f"ZeroDivisionError: division by zero (unexpected; the traceback is in {kept}, and --debug shows it)"
    assert capsys.readouterr().err == f"litscale fit: error: {line}\n"
    assert "in ended" in kept.read_text()


def test_each_rank_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    errors.keep_traceback_in(tmp_path)
    assert ended(lambda: 1 / 0) == 1
    assert capsys.readouterr().err.startswith("litscale fit [rank 1]: error: ZeroDivisionError")
    assert [path.name for path in tmp_path.iterdir()] == ["traceback_rank_1.txt"]


def test_ctrl_c_is_no_traceback(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert ended(interrupt) == 130
    assert capsys.readouterr().err == "litscale fit: error: interrupted by Ctrl-C\n"


def test_ctrl_c_in_lightning_has_the_same_status(capsys):
    """Outside of training steps, such as while pieces are read, Lightning ends the process with status 1."""

    def prepare():
        raise KeyboardInterrupt

    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data = LightningDataModule()
    data.prepare_data = prepare
    before = signal.getsignal(signal.SIGINT)
    try:
        assert ended(lambda: trainer.fit(BoringModel(), datamodule=data)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.endswith("litscale fit: error: interrupted by Ctrl-C\n")
    assert ended(lambda: sys.exit(1)) == 1


def test_a_refused_option_ends_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert start(monkeypatch, "fit", "--config", "demo.yaml", "--data.source", "null") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("litscale fit: error: give one of folder (of MIDI files) and source")
    assert error.endswith("(in the constructor of datamodules.rolls.data_module.PianoRollDataModule)")


def test_debug_shows_the_traceback_before_the_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert start(monkeypatch, "fit", "--debug", "--config", "demo.yaml", "--data.source", "null") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-1].startswith("litscale fit: error: give one of folder")
    assert sys.argv == ["litscale", "fit", "--config", "demo.yaml", "--data.source", "null"]
