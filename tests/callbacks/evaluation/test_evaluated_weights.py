"""The record of the evaluated weights."""

import pytest
from lightning.pytorch import Trainer

from callbacks.evaluation.evaluated_weights import evaluated_weights
from lit_models import LitSDVAR


def test_a_missing_file_of_the_model_is_named_with_its_option(tmp_path, monkeypatch):
    monkeypatch.setattr(LitSDVAR, "weight_files", lambda self: {"target_checkpoint": str(tmp_path / "gone.ckpt")})
    with pytest.raises(FileNotFoundError, match=r"^target_checkpoint .*gone.ckpt: no such file; train the run that "):
        evaluated_weights(Trainer(default_root_dir=tmp_path, logger=False), LitSDVAR.__new__(LitSDVAR))
