"""The recipes of published models say what the presets say, and digits learn in two steps."""

from pathlib import Path

import pytest
from cli_runs import few_samples, shipped

from litscale.cli.main import main
from litscale.models.fractal.checkpoints import official_arguments
from litscale.models.fractal.presets import PRESETS

CONFIGS = Path(__file__).parents[3] / "configs"
TEMPERATURES = {"fractalar_in64": 1.03, "fractalmar_in64": 1.02}  # as published; 1.1 for the others


@pytest.mark.parametrize("name", PRESETS)
def test_recipes_are_the_presets(name):
    config = shipped("fit", CONFIGS / "imagenet" / f"{name}.yaml")
    network = config["model"]["init_args"]["network"]["init_args"]
    expected = official_arguments(name)
    expected |= {"sizes": [list(size) for size in expected["sizes"]], "grad_checkpointing": True}
    assert {key: network[key] for key in expected} == expected
    generation = config["model"]["init_args"]["generation"]
    assert generation["temperature"] == pytest.approx(1 / TEMPERATURES.get(name, 1.1), abs=1e-4)
    assert len(generation["iterations"]) == len(network["generators"])
    assert config["data"]["init_args"]["size"] == network["sizes"][0][0]
    assert config["trainer"]["default_root_dir"] == f"runs/{name}"


@pytest.mark.parametrize("layer", ["fid_online", "fid50k"])
def test_quality_is_added_to_a_recipe(layer):
    recipe, added = (CONFIGS / "imagenet" / f"{name}.yaml" for name in ("fractalar_in64", layer))
    alone, both = shipped("test", recipe), shipped("test", recipe, added)
    names = [callback["class_path"] for callback in both["trainer"]["callbacks"]]
    assert names[:-1] == [callback["class_path"] for callback in alone["trainer"]["callbacks"]]
    assert names[-1] == "callbacks.GenerationQuality"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mar", "ar"])
def test_digits_train_evaluate_and_sample(tmp_path, kind, capsys):
    path = CONFIGS / "digits" / f"fractal_{kind}.yaml"
    config = ["--config", str(path), *few_samples(path), "--trainer.default_root_dir", str(tmp_path)]
    quick = ["--trainer.enable_progress_bar", "false", "--model.generation.iterations", "2"]
    main(["fit", *config, *quick, "--trainer.max_steps", "2", "--trainer.limit_val_batches", "1"])
    checkpoint = ["--ckpt_path", str(tmp_path / "checkpoints" / "last.ckpt")]
    few = ["--trainer.limit_test_batches", "1", "--model.nll_passes", "2"]
    main(["test", *config, *quick, *checkpoint, *few])
    out = capsys.readouterr().out
    for name in ("test/bits_per_dim", "test/bits_per_dim/independent", "test/class_accuracy", "test/fid"):
        assert name in out
    main(["predict", *config, *quick, *checkpoint, "--data.predict.num_samples", "3"])
    (predictions,) = (tmp_path / "predictions").iterdir()
    written = sorted(path.name for path in predictions.iterdir())
    assert written == sorted(
        ["sheet.png", "steps.png", *(f"sample_{i:05d}.{ending}" for i in range(3) for ending in ("png", "gif", "json"))]
    )
