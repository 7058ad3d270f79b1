"""What identifies a checkpoint."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from litscale.storage import checkpoint_record
from litscale.storage.checkpoint_record import CheckpointRecord, record_checkpoint


def save(path: Path, step: int) -> None:
    torch.save({"global_step": step}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def test_step_and_hash_are_of_one_file_although_it_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1)
    read, steps = checkpoint_record.read_checkpoint, [2, 3]

    def replaced_then(path: Path, option: str) -> Any:
        content = read(path, option)
        if steps:
            save(path, steps.pop(0))
        return content

    monkeypatch.setattr(checkpoint_record, "read_checkpoint", replaced_then)
    assert record_checkpoint(path) == CheckpointRecord(str(path), 3, sha256(path.read_bytes()).hexdigest())


def test_files_without_a_step_and_missing_files(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "published.pth")
    assert record_checkpoint(tmp_path / "published.pth").step is None
    with pytest.raises(FileNotFoundError, match=r"--ckpt_path .*none\.ckpt: no such file"):
        record_checkpoint(tmp_path / "none.ckpt", "--ckpt_path")
