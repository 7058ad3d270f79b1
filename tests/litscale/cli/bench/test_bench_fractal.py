"""``litscale bench fractal`` on small networks: the grid, its files, trained weights, going on, errors."""

import csv
import json
import math
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from fractal_runs import write_run
from lightning.pytorch import LightningDataModule
from PIL import Image

from datamodules import DigitsDataModule
from lit_models import load_run
from litscale.cli.bench.fractal_grid import FractalBench, Way, validation_canvases
from litscale.cli.bench.fractal_networks import Networks
from litscale.cli.main import main
from litscale.models.fractal import Fractal, Generation

NETWORK = {"sizes": [[8, 8], [2, 2], [1, 1]], "widths": [16, 16, 8], "blocks": [1, 1, 0], "heads": [2, 2, 1]}
NETWORK |= {"generators": ["ar", "ar"], "codec": "gray", "num_classes": 10}
SLOW = pytest.mark.slow  # other tests, or the cases beside them, hold the same error
SHORT = ["--iterations", "[2,16]", "--orders", "[random,confidence]", "--repeats", "2", "--quality_canvases", "5"]
WAYS = [
    "AR training step",
    "MAR training step",
    "AR sequential",
    "AR no cache",
    "AR jacobi, repeat",
    "MAR 2 steps, random",
    "MAR 16 steps, random",
    "MAR 2 steps, confidence",
    "MAR 16 steps, confidence",
]


def write_config(folder, **changes):
    """Path of a config of digits of 8x8 in patches of 2x2; its run folder is ``folder``."""
    network = NETWORK | changes
    trainer = {"default_root_dir": str(folder), "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    settings = {
        "seed_everything": 1,
        "trainer": {**trainer, "enable_model_summary": False},
        "model": {
            "class_path": "lit_models.LitFractal",
            "init_args": {
                "network": {"class_path": "litscale.models.fractal.Fractal", "init_args": network},
                "generation": {"iterations": 3, "cfg": 2.0},
                "nll_passes": 4,
            },
        },
        "data": {"class_path": "datamodules.DigitsDataModule", "init_args": {"size": 8, "batch_size": 3}},
    }
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "run")


def rows(folder):
    """The table by way."""
    with (folder / "bench_fractal.csv").open() as file:
        return {
            row.pop("way"): {
                key: value if key in ("kind", "order") else float(value) for key, value in row.items() if value
            }
            for row in csv.DictReader(file)
        }


def test_random_weights_are_measured_at_any_number_of_patches(config, tmp_path, capsys):
    given = ["--repeats", "1", "--iterations", "[2,8]", "--patches", "[4,8]", "--uncached", "4"]
    main(["bench", "fractal", "--config", config, *SHORT, *given])
    found = rows(tmp_path / "run")
    assert list(found) == [
        f"{count} patches, {way}"
        for count in (4, 8)
        for way in (each.replace("16", "8") for each in WAYS)
        if (count, way) != (8, "AR no cache") and not (count == 4 and "8 steps" in way)
    ]
    row = found["8 patches, MAR 2 steps, random"]
    assert (row["kind"], row["steps"], row["order"]) == ("MAR", 2, "random")
    for name, row in found.items():
        assert row["seconds"] > 0
        assert "bits_per_dim" not in row
        assert ("passes_per_patch" in row) == ("jacobi" in name)
        assert (row["ratio"] == 1) or name.split(", ", 1)[1] not in ("AR training step", "AR sequential")
    # a step of the sampler dispatches the same operators for each patch; MAR's depend on the steps
    operators = {name: row["operators"] for name, row in found.items()}
    assert operators["8 patches, AR sequential"] > 1.7 * operators["4 patches, AR sequential"]
    assert operators["8 patches, MAR 2 steps, random"] < operators["8 patches, MAR 8 steps, random"]
    out = capsys.readouterr().out
    assert "AR: random weights, MAR: random weights" in out
    assert "4 patches, MAR 8 steps, random: left out" in out
    assert "CPU seconds of one thread, medians of 1" in out
    settings = json.loads((tmp_path / "run" / "bench_fractal.json").read_text())["settings"]
    assert (settings["cfg"], settings["repeats"], settings["batch_size"]) == (2.0, 1, 1)
    with Image.open(tmp_path / "run" / "bench_fractal.png") as picture:
        assert picture.format == "PNG"
    assert not list((tmp_path / "run").glob("*unfinished*"))


def test_trained_weights_are_scored(config, tmp_path):
    # 1. a run of each kind, and a draft
    options = {"run": {}, "mar": {"generators": ["mar", "mar"]}, "draft": {"blocks": [1, 1, 1]}}
    for name, changes in options.items():
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, NETWORK | changes)
    given = ["--ckpt_path", "last", "--other_checkpoint", str(tmp_path / "mar")]
    given += ["--draft_checkpoint", str(tmp_path / "draft" / "checkpoints" / "last.ckpt")]
    main(["bench", "fractal", "--config", config, *SHORT, *given, "--repeats", "1", "--patches", "[16,8]"])
    report = json.loads((tmp_path / "run" / "bench_fractal.json").read_text())
    assert report["settings"]["scored_canvases"] == 5
    assert report["settings"]["lower_iterations"] == [3]
    text = (tmp_path / "run" / "bench_fractal.md").read_text()
    for option, name in (("ckpt_path", "run"), ("other_checkpoint", "mar"), ("draft_checkpoint", "draft")):
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        assert report["checkpoints"][option]["checkpoint"] == str(path)
        assert sha256(path.read_bytes()).hexdigest() in text
    # 2. what a way draws exactly is scored as the network is; of MAR, few steps are worse than one for each patch
    data = DigitsDataModule(size=8, batch_size=5)
    data.prepare_data()
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    found = rows(tmp_path / "run")
    for name in ("sequential", "jacobi, repeat", "jacobi, draft", "no cache"):
        for count, width in ((16, 8), (8, 4)):
            network = load_run(tmp_path / "run", "last").network
            nats = network.nll(batch["canvas"][..., :width], batch["label"]).mean().item()
            row = found[f"{count} patches, AR {name}"]
            assert row["bits_per_dim"] == pytest.approx(nats / math.log(2) / (8 * width), rel=1e-5)
    assert found["16 patches, AR jacobi, draft"]["passes_per_patch"] > 0
    network = load_run(tmp_path / "mar", "last").network
    # the second level has four patches and three steps, so its likelihood is not the network's own
    nats = network.nll(batch["canvas"], batch["label"], passes=4, seed=0).mean().item() / math.log(2) / 64
    many, few = (found[f"16 patches, MAR {steps} steps, random"]["bits_per_dim"] for steps in (16, 2))
    assert many == pytest.approx(nats, rel=0.05)
    assert few != many
    assert not any("bits_per_dim" in row for name, row in found.items() if "confidence" in name or "training" in name)


def test_the_networks_of_a_mixed_config_are_three(tmp_path):
    path = write_config(tmp_path / "run", generators=["mar", "ar"])
    main(
        [
            "bench",
            "fractal",
            "--config",
            path,
            "--iterations",
            "[2,4]",
            "--orders",
            "[raster]",
            "--repeats",
            "1",
            "--patches",
            "[4]",
        ]
    )
    labels = [name.removeprefix("4 patches, ") for name in rows(tmp_path / "run")]
    assert [name for name in labels if name.startswith("configured")] == [
        "configured training step",
        "configured 2 steps, raster",
        "configured 4 steps, raster",
    ]
    assert len(labels) == 3 + 3 + 2 + 2


@pytest.mark.slow
def test_an_interrupted_benchmark_goes_on(config, tmp_path, monkeypatch):
    arguments = ["bench", "fractal", "--config", config, "--iterations", "[]", "--repeats", "2", "--patches", "[4]"]
    taken, whole = [], FractalBench._run

    def run(self, at, way, width, number):
        if taken[-1:] == [("AR sequential", 1)] and len(taken) == 8:
            taken.append("stop")
            raise KeyboardInterrupt
        taken.append((way.label, number))
        return whole(self, at, way, width, number)

    monkeypatch.setattr(FractalBench, "_run", run)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    main(arguments)
    labels = WAYS[:5]
    expected = [(label, number) for number in range(3) for label in labels]
    assert taken == [*expected[:8], "stop", *expected[8:]]
    # other settings start again
    taken[:] = ["again"]
    (tmp_path / "run" / "bench_fractal_unfinished.json").write_text(json.dumps({"key": "other", "rows": {"x": {}}}))
    main([*arguments, "--repeats", "1"])
    assert len(taken) == 1 + 2 * 5


def test_canvases_are_scored_where_they_begin():
    """A network that is told the phase of each column gives canvases that begin elsewhere another likelihood."""
    torch.manual_seed(0)
    network = Fractal(**NETWORK | {"num_classes": 0, "periods": [3, 8]})
    torch.nn.init.normal_(network.levels[0].generator.phase_emb)
    canvas, start = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8), torch.tensor([2, 7])

    class Data(LightningDataModule):
        def val_dataloader(self):
            return [{"canvas": canvas, "start": start}]

    canvases = validation_canvases(Data(), 2)
    bench = FractalBench(
        networks=Networks(network, trained=True),
        batch_size=1,
        train_batch_size=1,
        repeats=1,
        uncached=0,
        canvases=canvases,
    )
    way = Way("AR sequential", "AR", Generation())
    found = bench._likelihood(lambda width: {"AR": network}, way, 8)["nats_per_step"]
    assert found == pytest.approx(network.nll(canvas, start=start).mean().item() / 8)
    assert found != pytest.approx(network.nll(canvas).mean().item() / 8, rel=1e-4)


def test_a_row_holds_medians_over_rounds():
    network = Fractal([(4, 4), (2, 2), (1, 1)], ["ar", "ar"], [16, 16, 8], [1, 1, 0], [2, 2, 1], codec="binary")
    bench = FractalBench(
        networks=Networks(network, trained=False), batch_size=2, train_batch_size=4, repeats=3, uncached=0
    )
    ways = [
        Way("AR sequential", "AR", Generation()),
        Way("MAR x", "MAR", Generation()),
        Way("MAR training step", "MAR"),
    ]
    found = {f"4, {way.label}, 0": {"operators": 7} for way in ways} | {"4, MAR x, quality": {"nats_per_step": 0.5}}
    for way, seconds in zip(
        [*ways, Way("AR training step", "AR")], ([4, 1, 2], [6, 3, 1], [8, 8, 1], [1, 2, 4]), strict=True
    ):
        found |= {f"4, {way.label}, {i}": {"seconds": value} for i, value in enumerate(seconds, start=1)}
    assert bench._row(found, 4, ways[0]) == {
        "patches": 4,
        "operators": 7,
        "seconds": 1,
        "ratio": 1,
        "seconds_min": 0.5,
        "seconds_max": 2,
    }
    times = {"seconds": 1.5, "ratio": 1.5, "seconds_min": 0.5, "seconds_max": 3}
    assert bench._row(found, 4, ways[1]) == {"patches": 4, "operators": 7, **times, "nats_per_step": 0.5}
    times = {"seconds": 2, "ratio": 4, "seconds_min": 0.25, "seconds_max": 2}
    assert bench._row(found, 4, ways[2]) == {"patches": 4, "operators": 7, **times}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--patches", "[6]"], ValueError, "patches must be multiples of 4, the patches of a column, not 6"),
        (["--patches", "[]"], ValueError, "patches must be at least one number, or null"),
        (["--model.generation.compile", "true"], ValueError, "set generation.compile to false"),
        (["--model.generation.weights", "int8"], ValueError, "weights int8 changes nothing"),
        pytest.param(["--patches", "[0]"], ValueError, "patches must be multiples of 4", marks=SLOW),
        (["--repeats", "0"], ValueError, "batch_size, train_batch_size, repeats and threads must be at least 1"),
        pytest.param(["--quality_canvases", "-1"], ValueError, "quality_canvases at least 0", marks=SLOW),
        pytest.param(
            ["--orders", "[best]"], ValueError, "order must be among random, raster, confidence, not 'best'", marks=SLOW
        ),
        pytest.param(["--iterations", "[0]"], ValueError, "iterations must be at least 1", marks=SLOW),
        (["--ckpt_path", "gone.ckpt"], FileNotFoundError, "--ckpt_path gone.ckpt: no such file"),
        (["--other_checkpoint", "gone.ckpt"], FileNotFoundError, "other_checkpoint gone.ckpt: no such file"),
        (["--trainer.devices", "2"], ValueError, "a benchmark runs on one device: set trainer.devices to 1, not 2"),
    ],
)
def test_bad_options(config, arguments, error, message, monkeypatch):
    monkeypatch.setattr(FractalBench, "_run", lambda *given: pytest.fail("something was measured"))
    with pytest.raises(error, match=message):
        main(["bench", "fractal", "--config", config, *arguments])


def test_checkpoints_that_do_not_fit_are_refused(config, tmp_path):
    for name, changes in (("run", {}), ("wide", {"sizes": [[8, 8], [4, 4], [1, 1]]})):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, NETWORK | changes)
    own, wide = (str(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("run", "wide"))
    for given, message in (
        (["--other_checkpoint", own], r"other_checkpoint .*: the other network has generators \['ar', 'ar'\]"),
        (
            ["--other_checkpoint", wide],
            r"other_checkpoint .*last.ckpt: the other network has sizes \[\[8, 8\], \[4, 4\], \[1, 1\]\] instead of",
        ),
        (["--draft_checkpoint", own], "draft_checkpoint .*: the AR network that it guesses for has random weights"),
        (["--ckpt_path", own, "--patches", "[20]"], "patches 20 are too many for trained weights: learned positions"),
    ):
        with pytest.raises(ValueError, match=message):
            main(["bench", "fractal", "--config", config, *given])


def test_only_fractal_networks_are_benchmarked(config):
    settings = yaml.safe_load(Path(config).read_text())
    tokenizer = {"patch_nums": [1, 2], "vocab": 16, "dim": 8, "channels": 8, "multipliers": [1, 2], "blocks": 1}
    vqvae = {"class_path": "litscale.models.var.VQVAE", "init_args": tokenizer | {"in_channels": 1}}
    settings["model"] = {"class_path": "lit_models.LitVQVAE", "init_args": {"network": vqvae}}
    Path(config).write_text(yaml.safe_dump(settings))
    with pytest.raises(
        ValueError, match="litscale bench fractal takes a LitFractal with a Fractal as its network, not"
    ):
        main(["bench", "fractal", "--config", config])
