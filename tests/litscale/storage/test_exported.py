"""Weights of exported models as files; `tests/litscale/cli/export` reads them back."""

import resource

import pytest
import torch

from litscale.storage.exported import write_exported


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=rf"^{path} could not be written: "):
            write_exported(path, {"state_dict": {"weight": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
