"""A killed tokenizer run, with discriminator, EMA and restarts of codes, goes on as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from cli_runs import killed
from var_toys import same

CONFIG = Path(__file__).parents[3] / "configs" / "digits" / "vqvae.yaml"


@pytest.mark.slow
def test_killed_in_mid_epoch(tmp_path, litscale):
    common = ["fit", "--config", CONFIG, "--trainer.max_steps", 12, "--trainer.limit_val_batches", 0]
    common += ["--model.discriminator.weight", 0.5, "--model.discriminator.width", 8, "--model.discriminator.layers", 2]
    common += ["--model.discriminator.consistency", 1.0, "--model.restart_every", 3, "--checkpoints.every_n_steps", 5]
    litscale(*common, "--trainer.default_root_dir", tmp_path / "whole")
    broken = [*common, "--trainer.default_root_dir", tmp_path / "broken"]
    killed(8, *broken)
    paths = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "broken")]
    assert torch.load(paths[1], weights_only=True)["global_step"] == 5
    litscale(*broken, "--ckpt_path", "last")
    ends = [torch.load(path, weights_only=True) for path in paths]
    assert [end["global_step"] for end in ends] == [12, 12]
    same(*ends, ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state", "current_model_state"))
    assert any(name.startswith("discriminator") for name in ends[0]["state_dict"])
