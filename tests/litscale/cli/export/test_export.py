"""``litscale export``: what `from_pretrained` loads is exactly the module of the run."""

import re
import shutil

import pytest
import torch
import yaml
from cli_runs import Beginnings, Predictions
from lightning.pytorch import LightningModule
from module_runs import CLASSES, MODELS
from safetensors import safe_open

from lit_models import LitFractal, LitVAR, LitVQVAE, load_run
from lit_models.base import LitModule
from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.evaluate.selection import CheckpointReader
from litscale.cli.export.exporter import export_run
from litscale.cli.main import main
from litscale.models.fractal import Fractal, fill_official
from litscale.models.var import fill_official as fill_official_var

NAMES = ("vqvae", "fractal", "var", "sdvar")
SHORT = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
FILES = ["README.md", "config.yaml", "model.safetensors"]


def same(ours, theirs):
    """Whether two mappings hold the same tensors."""
    return ours.keys() == theirs.keys() and all(
        value.dtype == theirs[name].dtype and torch.equal(value, theirs[name]) for name, value in ours.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_round_trip_is_the_module_of_the_run(runs, name, tmp_path, capsys):
    folder = tmp_path / "deep" / name
    main(["export", str(runs / name), "--folder", str(folder)])
    assert sorted(path.name for path in folder.iterdir()) == FILES
    (tmp_path / "any").touch()
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "any").stat().st_mode}
    assert f"  {folder / 'model.safetensors'}" in capsys.readouterr().out
    moved = folder.rename(tmp_path / "moved")
    expected = load_run(runs / name, "best" if name == "fractal" else "last")
    module = CLASSES[name].from_pretrained(str(moved))
    assert type(module) is CLASSES[name]
    assert not module.training
    assert same(module.state_dict(), expected.state_dict())
    if name == "vqvae":
        images = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
        assert torch.equal(module.network(images).images, expected.network(images).images)
    else:
        assert module.generation == expected.generation
        assert torch.equal(*(each.generate(batch_size=2, seed=4) for each in (module, expected)))
    assert LitModule.from_pretrained(moved).state_dict().keys() == module.state_dict().keys()


def test_predict_takes_an_export_for_a_checkpoint(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("litscale.storage.exported.SHIPPED", tmp_path)
    folder = tmp_path / "model"
    main(["export", str(runs / "var"), "--folder", str(folder), "--checkpoint", "last"])
    seen = []
    short = [*SHORT, "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.callbacks+=cli_runs.Predictions"]
    for given in (
        ["--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "model.safetensors")],
        ["--config", str(runs / "var" / "config.yaml"), "--ckpt_path", "last"],
        [f"--model.pretrained={folder}"],
        ["--model.pretrained", "model"],  # one that comes with litscale
    ):
        Predictions.seen.clear()
        main(["predict", *given, *short])
        seen.append(torch.cat([predicted["canvas"] for _, predicted in Predictions.seen]))
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    assert LitVAR.from_pretrained("model").state_dict().keys() == load_run(runs / "var", "last").state_dict().keys()
    with pytest.raises(FileNotFoundError, match=r"--model.pretrained models: no such folder; .* with litscale \(model"):
        main(["predict", "--model.pretrained", "models", *short])
    with pytest.raises(ValueError, match=r"model.safetensors: an export holds only weights"):
        main(["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "model.safetensors")])


@pytest.mark.parametrize("name", NAMES)
def test_a_training_starts_from_an_export_and_resumes_from_its_own_checkpoint(runs, name, tmp_path):
    folder = tmp_path / "export"
    main(["export", str(runs / name), "--folder", str(folder), "--checkpoint", "last"])
    words = ["fit", "--model.pretrained", str(folder), *SHORT, "--trainer.default_root_dir", str(tmp_path / "run")]
    words += ["--trainer.limit_val_batches", "0", "--trainer.callbacks+=cli_runs.Beginnings", "--ckpt_path", "auto"]
    Beginnings.seen.clear()
    for steps in (1, 2):
        main([*words, "--trainer.max_steps", str(steps)])
    first, second = Beginnings.seen
    assert same(first, load_run(runs / name, "last").state_dict())
    assert not same(second, first)


def test_a_training_starts_from_a_checkpoint_and_refuses_what_does_not_fit(runs, tmp_path):
    new, last = tmp_path / "run", runs / "fractal" / "checkpoints" / "last.ckpt"
    words = ["fit", "--config", str(runs / "fractal" / "config.yaml"), "--trainer.default_root_dir", str(new)]
    words += [*SHORT, "--weights"]
    with pytest.raises(FileNotFoundError, match=r"--weights none.ckpt: no such file"):
        main([*words, "none.ckpt"])
    other = runs / "var" / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=f"--weights {other} does not fit the model"):
        main([*words, str(other)])
    assert not new.exists()
    for given, checkpoint in ((last, last), (runs / "fractal", "best")):
        start = ["--trainer.max_steps", "1", "--trainer.callbacks+=cli_runs.Beginnings", "--overwrite", "true"]
        main([*words, str(given), *start])
        assert same(Beginnings.seen.pop(), load_run(runs / "fractal", checkpoint).state_dict())
    assert "weights" not in yaml.safe_load((new / "config.yaml").read_text())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_the_network_and_no_tokenizer(runs, dtype, tmp_path):
    export_run(runs / "var", tmp_path / "half", dtype=dtype)
    wanted = getattr(torch, dtype)
    whole = load_run(runs / "var", "last")
    with safe_open(tmp_path / "half" / "model.safetensors", framework="pt") as file:
        assert file.get_tensor("network.head.weight").dtype == wanted
        inside = [name for name in file.keys() if name.startswith("tokenizer/")]  # noqa: SIM118, no dict
        assert inside
        assert wanted not in {file.get_tensor(name).dtype for name in inside}
    half = LitVAR.from_pretrained(tmp_path / "half")
    rounded = whole.network.head.weight.to(wanted).float()
    assert torch.equal(half.network.head.weight, rounded)
    assert not torch.equal(rounded, whole.network.head.weight)
    assert same(half.network.vqvae.state_dict(), whole.network.vqvae.state_dict())


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("vqvae", {"vae.pth"}),
        ("var", {"vae.pth", "var.pth"}),
        ("sdvar", {"vae.pth", "var_draft.pth", "var_target.pth"}),
    ],
)
def test_official_layouts_fill_new_networks(runs, name, files, tmp_path):
    export_run(runs / name, tmp_path / "out", official=True)
    official = tmp_path / "out" / "official"
    assert {path.name for path in official.iterdir()} == files
    module, fresh = load_run(runs / name, "last"), load_run(runs / name, "last")
    expected, filled = ((each.target if name == "sdvar" else each.network) for each in (module, fresh))
    for parameter in filled.parameters():
        parameter.data.zero_()
    fill_official_var(filled, official / max(files))
    assert all(torch.equal(value, dict(expected.named_parameters())[n]) for n, value in filled.named_parameters())


def test_the_official_layout_of_fractalgen(runs, tmp_path):
    options = MODELS["fractal"]["init_args"]
    network = options["network"]["init_args"] | {"codec": "rgb", "generators": ["mar", "mar"]}
    colour = {**MODELS["fractal"], "init_args": {**options, "network": {**options["network"], "init_args": network}}}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"model": colour}))
    expected = Fractal(**network)
    torch.save({"state_dict": LitFractal(expected).state_dict()}, tmp_path / "colour.ckpt")
    export_run(run, tmp_path / "out", checkpoint=str(tmp_path / "colour.ckpt"), official=True)
    filled = Fractal(**network)
    fill_official(filled, tmp_path / "out" / "official" / "fractalgen.pth")
    assert same(filled.state_dict(), expected.state_dict())
    with pytest.raises(ValueError, match="FractalGen has networks of RGB images only"):
        export_run(runs / "fractal", tmp_path / "gray", official=True)
    assert not (tmp_path / "gray").exists()


def test_the_card_says_what_it_is(runs, tmp_path):
    run = shutil.copytree(runs / "fractal", tmp_path / "run")
    words = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    main(["validate", *words, "--trainer.default_root_dir", str(run)])
    (score,) = run.glob("scores_validate_*.json")
    main(["export", str(run)])
    header, _, text = (run / "export" / "README.md").read_text().removeprefix("---\n").partition("---\n")
    described = yaml.safe_load(header)
    assert described["library_name"] == "litscale"
    assert described["tags"] == ["litscale", "LitFractal"]
    ((result,),) = [each["results"] for each in described["model-index"]]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    kept = yaml.safe_load(score.read_text())["scores"]
    assert values == kept
    assert values.keys() == {"val/bits_per_dim"}
    assert "litscale predict --model.pretrained FOLDER " in text
    count = sum(parameter.numel() for parameter in load_run(run).parameters())
    assert f"| all | {count:,} |" in text
    assert 'LitFractal.from_pretrained("FOLDER")' in text
    assert "DigitsDataModule" in text
    assert "1 of the batches" in text  # as the config says
    assert "rounded" not in header + text
    export_run(run, tmp_path / "half", dtype="bfloat16")
    assert "before the weights were rounded to bfloat16" in (tmp_path / "half" / "README.md").read_text()
    # other weights have none of these scores
    main(["export", str(run), "--checkpoint", "last", "--overwrite"])
    assert "These weights were not evaluated." in (run / "export" / "README.md").read_text()


def test_what_the_training_logged(run):
    (run / "logs").mkdir()
    (run / "logs" / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,4,2.5,\n0,9,,1.25\n0,9,2.0,\n")
    main(["export", str(run)])
    assert (run / "export" / "training.csv").read_text() == "step,train/loss,val/loss\n4,2.5,\n9,2.0,1.25\n"
    assert "`training.csv` holds what was logged" in (run / "export" / "README.md").read_text()


def test_the_card_says_how_much_of_the_data_an_evaluation_saw(run):
    folder = EvaluationFolder(run, "few")
    folder.claim({"batches": 2, "precision": "16-true"})
    candidate = CheckpointReader().read(run / "checkpoints" / "best.ckpt")
    folder.keep(candidate, folder.take_snapshot(candidate), {"val/bits_per_dim": 5.0})
    main(["export", str(run)])
    assert "| evaluation few, 16-true, 2 of the batches |" in (run / "export" / "README.md").read_text()


def test_the_config_names_no_files_of_weights(runs, tmp_path):
    run = shutil.copytree(runs / "var", tmp_path / "run")
    export_run(run, tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config.keys() == {"seed_everything", "model", "data"}
    assert config["model"]["init_args"]["tokenizer_checkpoint"] is None
    options = {"generation": {"guess": "draft", "cfg": 2.0}, "draft_checkpoint": "runs/a", "nll_passes": 3}
    assert LitFractal.standalone_options(options) == {
        "generation": {"guess": "repeat", "cfg": 2.0},
        "draft_checkpoint": None,
        "nll_passes": 3,
    }
    lpips = {"loss": {"l1": 0.5, "perceptual": 1.0, "perceptual_weights": "vgg.pth"}, "features": {"class_path": "a"}}
    assert LitVQVAE.standalone_options(lpips) == {
        "loss": {"l1": 0.5, "perceptual": 0.0, "perceptual_weights": None},
        "features": None,
    }


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the fractal model's run."""
    return shutil.copytree(runs / "fractal", tmp_path / "run")


def test_a_file_in_place_of_a_run_is_the_same_error_as_no_run(tmp_path, capsys):
    (tmp_path / "run.yaml").touch()
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "run.yaml")])
    assert "run.yaml/config.yaml: no such file; give the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), [], "config.yaml: no such file; give the folder of a run"),
        (lambda run: shutil.rmtree(run / "checkpoints"), [], "last.ckpt: no such file; .*has no checkpoints"),
        (lambda run: None, ["--checkpoint", "gone.ckpt"], "gone.ckpt: no such file"),
        (lambda run: None, ["--checkpoint", "VAR"], "last.ckpt does not fit the model of .*config.yaml"),
        (lambda run: None, ["--folder", "RUN"], "run exists and is not an export, so it is not replaced"),
        (
            lambda run: None,
            ["--folder", "RUN", "--overwrite"],
            "run exists and is not an export, so it is not replaced",
        ),
        (lambda run: export_run(run, run / "export"), [], "export holds an export: give --overwrite"),
        (
            lambda run: None,
            ["--folder", "/proc/none/export"],
            "error: --folder /proc/none/export: No such file or directory; give another --folder",
        ),
    ],
)
def test_one_error_says_what_is_wrong(runs, run, spoil, words, message, capsys):
    spoil(run)
    before = sorted(run.rglob("*"))
    named = {"RUN": str(run), "VAR": str(runs / "var" / "checkpoints" / "last.ckpt")}
    with pytest.raises(SystemExit):
        main(["export", str(run), *(named.get(word, word) for word in words)])
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error
    assert sorted(run.rglob("*")) == before


def test_an_export_is_replaced_as_a_whole_on_demand(run):
    export_run(run, run / "export")
    (run / "export" / "more.txt").write_text("of the earlier export")
    export_run(run, run / "export", overwrite=True)
    assert sorted(path.name for path in (run / "export").iterdir()) == FILES
    assert not list(run.glob(".litscale-*"))


def test_a_failure_leaves_nothing(run, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litscale.cli.export.exporter.card", fail)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, run / "export")
    assert not (run / "export").exists()
    assert not list(run.glob(".litscale-*"))


def test_what_cannot_be_loaded(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors: give a folder that litscale export wrote"):
        LitFractal.from_pretrained(run)
    export_run(run, run / "export")
    with pytest.raises(ValueError, match=r"export holds a LitFractal: use LitFractal.from_pretrained"):
        LitVAR.from_pretrained(run / "export")
    path = run / "export" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # of a weight
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged.*checksum differs"):
        LitFractal.from_pretrained(run / "export")
    path.write_bytes(data[:100])
    with pytest.raises(ValueError, match=r"model.safetensors.* damaged"):
        LitFractal.from_pretrained(run / "export")


class Plain(LightningModule):
    """Somebody's own module."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)


def test_any_lightning_module_but_no_official_layout(tmp_path):
    run = tmp_path / "plain"
    run.mkdir()
    torch.save({"state_dict": Plain().state_dict()}, tmp_path / "plain.ckpt")
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"class_path": f"{Plain.__module__}.Plain"}}))
    export_run(run, tmp_path / "out", checkpoint=str(tmp_path / "plain.ckpt"))
    loaded = load_run(tmp_path / "out", tmp_path / "out" / "model.safetensors")
    assert same(loaded.state_dict(), torch.load(tmp_path / "plain.ckpt", weights_only=True)["state_dict"])
    with pytest.raises(ValueError, match="no official layout of Plain"):
        export_run(run, tmp_path / "other", checkpoint=str(tmp_path / "plain.ckpt"), official=True)
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_that_a_training_overwrites_meanwhile(run, monkeypatch):
    path = run / "checkpoints" / "last.ckpt"
    real = load_run

    def overwritten(*arguments):
        module = real(*arguments)
        shutil.copy(path, run / "new.ckpt")
        (run / "new.ckpt").replace(path)
        return module

    monkeypatch.setattr("litscale.cli.export.exporter.load_run", overwritten)
    with pytest.raises(ValueError, match=r"last.ckpt was overwritten while it was read: run this again"):
        export_run(run, run / "export", checkpoint="last")
    assert not (run / "export").exists()
