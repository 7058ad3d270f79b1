"""A killed run goes on as if nothing had happened."""

import pytest
import torch
from cli_runs import killed
from var_toys import same

from litscale.cli.main import main


def run(*arguments):
    """Run the command line in this process, which takes a fraction of the time of one of its own."""
    main(list(map(str, arguments)))


def test_the_command_line_wins_over_the_checkpoint(tmp_path, config):
    run("fit", "--config", config, "--trainer.max_steps", 1)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"][0]
    options = ["--model.optimization.lr", 0.5, "--model.optimization.schedule", "constant", "--trainer.max_steps", 4]
    run("fit", "--config", config, "--ckpt_path", last, *options, "--model.optimization.weight_decay", 0.25)
    after = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert before["initial_lr"] == 0.003
    assert [group["lr"] for group in after] == [0.5, 0.5]
    assert [group["weight_decay"] for group in after] == [0.25, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_mid_epoch(tmp_path, config, workers):
    common = ["fit", "--config", config, "--data.num_workers", workers]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(*common, "--trainer.default_root_dir", whole)
    killed(5, *common, "--trainer.default_root_dir", broken)
    saved = torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # an epoch has three steps: this is in the middle of the second
    run(*common, "--trainer.default_root_dir", broken, "--ckpt_path", "last")
    ends = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, broken)]
    assert [end["global_step"] for end in ends] == [12, 12]
    same(*ends, ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state"))


def test_auto_goes_on_from_what_a_callback_has_saved(tmp_path, config):
    keep = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    options = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "step_{step}", "auto_insert_metric_name": False}
    common = ["fit", "--config", config, "--trainer.max_steps", 4]
    common += [keep, *(f"--trainer.callbacks.{name}={value}" for name, value in options.items())]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(*common, "--trainer.default_root_dir", whole)
    killed(2, *common, "--trainer.default_root_dir", broken)
    # the first epoch has three steps, and last.ckpt is written at its end
    assert [path.name for path in (broken / "checkpoints").iterdir()] == ["step_1.ckpt"]
    run(*common, "--trainer.default_root_dir", broken, "--ckpt_path", "auto")
    ends = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, broken)]
    assert [end["global_step"] for end in ends] == [4, 4]
    same(*ends, ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state"))
