"""`lit_models.load_run`: the module of a run folder is the one that ``litscale predict`` has."""

import shutil

import pytest
import torch
import yaml
from cli_runs import Predictions
from lightning.pytorch import LightningModule
from module_runs import CLASSES

from lit_models import LitFractal, load_run
from litscale.cli.main import main


@pytest.mark.parametrize(
    ("name", "checkpoint"), [("fractal", "best"), ("vqvae", "last"), ("var", "PATH"), ("sdvar", "last")]
)
def test_it_predicts_as_the_command_line(runs, name, checkpoint):
    path = checkpoint.replace("PATH", str(runs / name / "checkpoints" / "last.ckpt"))
    Predictions.seen.clear()
    configs = ["--config", str(runs / name / "config.yaml"), "--config", str(runs / f"{name}_data.yaml")]
    main(["predict", *configs, "--ckpt_path", path, "--trainer.callbacks+=cli_runs.Predictions"])
    ((batch, predicted),) = Predictions.seen

    module = load_run(runs / name, path)

    assert type(module) is CLASSES[name]
    assert not any(part.training for part in module.modules())
    assert {value.device.type for value in module.state_dict().values()} == {"cpu"}
    made = module.predict_step(batch, 0)
    assert made.keys() == predicted.keys()
    for key, value in predicted.items():
        same = torch.equal(made[key], value) if isinstance(value, torch.Tensor) else made[key] == value
        assert same, key


def test_best_is_what_is_loaded_unasked(runs):
    states = [load_run(*given).state_dict() for given in ((runs / "fractal",), (runs / "fractal", "best"))]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    last = load_run(str(runs / "fractal"), "last").state_dict()
    assert any(not torch.equal(value, last[name]) for name, value in states[0].items())


def test_averaged_weights_are_taken_where_there_are_some(runs):
    state = load_run(runs / "fractal", "last").state_dict()
    saved = torch.load(runs / "fractal" / "checkpoints" / "last.ckpt", weights_only=True)
    raw = saved["current_model_state"]
    assert all(torch.equal(value, saved["state_dict"][name]) for name, value in state.items())
    assert any(not torch.equal(value, raw[name]) for name, value in state.items())


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the fractal model's run."""
    return shutil.copytree(runs / "fractal", tmp_path / "run")


def changed(run, change):
    """Change the config of a run."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("spoil", "checkpoint", "error", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "last", FileNotFoundError, r"config.yaml: no such file.*fit"),
        (lambda run: None, "step_7.ckpt", FileNotFoundError, r"step_7.ckpt: no such file"),
        (
            lambda run: (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / ".last.earlier.ckpt"),
            "best",
            FileNotFoundError,
            r"run has no checkpoints/best.ckpt, only last.ckpt.*checkpoint=\"last\".*checkpoints.monitor",
        ),
        (lambda run: (run / "config.yaml").write_text("a: [b"), "last", ValueError, r"config.yaml .*YAML"),
        (lambda run: (run / "config.yaml").write_text("a: b"), "last", ValueError, r"config.yaml .*no `model`"),
        (
            lambda run: changed(run, lambda config: config["model"].update(class_path="nowhere.Module")),
            "last",
            ValueError,
            r"(?s)config.yaml: .*nowhere.Module.*No module named.*PYTHONPATH",
        ),
        (
            lambda run: changed(run, lambda config: config["model"]["init_args"].update(colour="red")),
            "last",
            ValueError,
            r"(?s)config.yaml: .*colour",
        ),
        (
            lambda run: changed(
                run, lambda config: config["model"]["init_args"]["network"]["init_args"].update(widths=[16, 24, 16])
            ),
            "last",
            ValueError,
            r"last.ckpt does not fit the model of .*config.yaml: .*another architecture",
        ),
        (lambda run: (run / "checkpoints" / "last.ckpt").write_bytes(b"PK"), "last", ValueError, r"last.ckpt is dam"),
        (lambda run: torch.save({"model": {}}, run / "other.pt"), "other.pt", ValueError, r"other.pt .*no state_dict"),
    ],
)
def test_one_error_says_what_is_wrong(run, spoil, checkpoint, error, message, monkeypatch, capsys):
    monkeypatch.chdir(run)
    spoil(run)
    with pytest.raises(error, match=message):
        load_run(run, checkpoint)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("config", "weights"), [("var", "fractal"), ("sdvar", "var"), ("vqvae", "var")])
def test_a_checkpoint_of_another_module_is_refused(runs, config, weights):
    path = runs / weights / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"last.ckpt does not fit the model of .*config.yaml: "):
        load_run(runs / config, path)


class Plain(LightningModule):
    """Somebody's own module."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = torch.nn.Linear(2, width)


def test_any_lightning_module(tmp_path):
    torch.manual_seed(1)
    module = Plain(width=5)
    torch.save({"state_dict": module.state_dict()}, tmp_path / "plain.ckpt")
    config = {"class_path": f"{Plain.__module__}.Plain", "init_args": {"width": 5}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": config}))
    assert torch.equal(load_run(tmp_path, tmp_path / "plain.ckpt").layer.weight, module.layer.weight)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": config | {"init_args": {"width": 4}}}))
    with pytest.raises(ValueError, match=r"(?s)plain.ckpt does not fit the model of .*size mismatch"):
        load_run(tmp_path, tmp_path / "plain.ckpt")


def test_load_from_checkpoint_names_what_to_use(runs):
    path = runs / "fractal" / "checkpoints" / "last.ckpt"
    with pytest.raises(NotImplementedError, match=r"lit_models.load_run\(FOLDER, checkpoint=.*last.ckpt"):
        LitFractal.load_from_checkpoint(path, network=None)
