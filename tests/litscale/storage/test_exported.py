"""Weights of exported models as files; `tests/litscale/cli/export` reads them back."""

import resource
from pathlib import Path

import pytest
import torch

from litscale.storage.exported import CONFIG, SHIPPED, WEIGHTS, exported_folder, write_exported


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=rf"^{path} could not be written: "):
            write_exported(path, {"state_dict": {"weight": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_is_no_model_does_not_hide_the_one_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bach").mkdir()
    assert exported_folder("bach") == SHIPPED / "bach"
    for name in (CONFIG, WEIGHTS):
        (tmp_path / "bach" / name).touch()
    assert exported_folder("bach") == Path("bach")
    with pytest.raises(FileNotFoundError, match=r"bahc: no such folder; .* \(bach, fashion, jsb\)"):
        exported_folder("bahc")
