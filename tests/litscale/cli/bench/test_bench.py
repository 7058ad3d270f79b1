"""``litscale bench decode`` on a small pair: the grid, its files, going on after an interruption, errors."""

import csv
import json
import os
import signal
import threading
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sdvar_lit_toys import SIZES, Patches, lit_sdvar

from litscale.cli import signals
from litscale.cli.bench.choice import bound_of, decoder_options, layer
from litscale.cli.bench.decoder_grid import Bench, Case, Quality, decoders
from litscale.cli.bench.generations import changed, changes
from litscale.cli.bench.speed_quality import OFFSETS, front, label_offsets
from litscale.cli.main import main
from litscale.models.sdvar import KL, AdaptiveGamma, Costs, Coupled, FixedGamma, Speculative
from litscale.models.var import Pruning, VARGeneration
from litscale.storage.checkpoints import stamp

VQVAE = {"patch_nums": [1, 2, 4], "vocab": 16, "dim": 8, "channels": 8, "multipliers": [1, 2], "blocks": 1}
SAVING = ["--large_scales", "[]", "--generations", "[]", "--repeats", "1", "--speed_batches", "[2]"]
SHORT = [*SAVING, "--num_images", "6", "--batch_size", "4", "--seeds", "2", "--gammas", "[1,2]", "--untrained", "true"]
GRID = [*SHORT, "--acceptances", "[TopK,Coupled]", "--thresholds", "[0.0,1.0]", "--entry_nums", "[1]"]
SLOW = pytest.mark.slow  # the constructors' own tests hold the same error
EXTRACTOR = ["--features", "sdvar_lit_toys.Patches"]


@pytest.fixture
def config(tmp_path):
    """Path of a config of a small pair with random weights; its run folder is ``run``."""
    networks = {
        role: {"class_path": "litscale.models.var.VAR", "init_args": {"num_classes": 10, **sizes}}
        for role, sizes in SIZES.items()
    }
    tokenizer = {"class_path": "litscale.models.var.VQVAE", "init_args": VQVAE | {"in_channels": 1}}
    settings = {
        "seed_everything": 1,
        "trainer": {"default_root_dir": str(tmp_path / "run"), "accelerator": "cpu", "logger": False},
        "model": {
            "class_path": "lit_models.LitSDVAR",
            "init_args": {
                "vqvae": tokenizer,
                **networks,
                "decoder": {"class_path": "Speculative", "init_args": {"gamma": 1, "acceptance": "Rejection"}},
                "generation": {"cfg": 0.5},
            },
        },
        "data": {"class_path": "datamodules.DigitsDataModule", "init_args": {"size": 8}},
    }
    settings["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def rows(folder):
    """The table by decoder."""
    with (folder / "bench_decode.csv").open() as file:
        return {
            row.pop("decoder"): {key: float(value or "nan") for key, value in row.items()}
            for row in csv.DictReader(file)
        }


def test_the_grid_is_measured_and_written(config, tmp_path, capsys):
    main(["bench", "decode", "--config", config, *GRID, *EXTRACTOR])
    found = rows(tmp_path / "run")
    assert list(found) == [
        "target only",
        "draft only",
        "speculative (gamma 1, Rejection)",
        "collaborative (entry_num 1, causal)",
        *(f"speculative (gamma {gamma}, TopK, threshold {share})" for share in (0.0, 1.0) for gamma in (1, 2)),
        *(f"speculative (gamma {gamma}, Coupled)" for gamma in (1, 2)),
    ]
    assert found["target only"]["target_calls_per_image"] == 3
    assert found["draft only"]["target_calls_per_image"] == 0
    assert found["speculative (gamma 2, TopK, threshold 0.0)"]["target_calls_per_image"] == 1
    assert found["speculative (gamma 2, TopK, threshold 0.0)"]["accepted_scales_per_call"] == 2
    assert found["speculative (gamma 2, Coupled)"]["token_agreement"] == 1
    assert found["speculative (gamma 2, Coupled)"]["fid_change"] == pytest.approx(0, abs=1e-6)
    assert found["draft only"]["token_agreement"] < 1
    assert all(row["ms_per_image"] > 0 and row["speedup"] > 0 and row["fid"] > 0 for row in found.values())
    out = capsys.readouterr().out
    assert "2 x 6 images in batches of 4, cpu" in out
    assert "speed-up" in out
    described = json.loads((tmp_path / "run" / "bench_decode.json").read_text())
    assert described["settings"] | {"precision": "", "reference": ""} == {
        "precision": "",
        "reference": "",
        "cfg": 0.5,
        "top_k": 0,
        "top_p": 0.0,
        "temperature": 1.0,
        "greedy": False,
        "smooth": False,
        "cfg_until": None,
        "prune": None,
        "images": 6,
        "batch_size": 4,
        "seeds": 2,
        "speed_batches": [2],
        "repeats": 1,
    }
    with Image.open(tmp_path / "run" / "bench_decode.png") as picture:
        assert picture.format == "PNG"
    assert not list((tmp_path / "run").glob("*unfinished*"))


def test_savings_are_rows_beside_the_whole_target(config, tmp_path):
    changes = "[{cfg_until: 1}, {prune: {from_scale: 2, ratios: [0.5]}}, {cfg_until: 1, top_k: [0, 0, 1]}]"
    saving = ["--large_scales", "[1,2]", "--generations", changes]
    saving += ["--speed_batches", "[1,3]", "--acceptances", "[]"]
    main(["bench", "decode", "--config", config, *SHORT, *saving, "--entry_nums", "[]", *EXTRACTOR])
    found = rows(tmp_path / "run")
    names = ["target only", *(f"refine (large_scales {n})" for n in (1, 2))]
    assert list(found) == [
        *("target only", "draft only", "speculative (gamma 1, Rejection)", *names[1:]),
        *(f"{name}, cfg_until 1" for name in names),
        *(f"{name}, pruned from scale 2 to 0.5" for name in names),
        *(f"{name}, top_k 1 from scale 2, cfg_until 1" for name in names),
    ]
    alone, until = found["target only"], found["target only, cfg_until 1"]
    assert (alone["target_tokens_per_image"], alone["draft_tokens_per_image"]) == (2 * 21, 0)
    assert (until["target_tokens_per_image"], until["target_calls_per_image"]) == (21 + 1, 3)
    assert found["target only, pruned from scale 2 to 0.5"]["target_tokens_per_image"] == 2 * (1 + 4 + 8)
    refined = found["refine (large_scales 1)"]
    assert (refined["target_tokens_per_image"], refined["draft_tokens_per_image"]) == (2 * 1, 2 * 21)
    assert alone["arithmetic"] == alone["speedup"] == alone["speedup_3"] == 1
    assert until["arithmetic"] == pytest.approx(alone["gflops_per_image"] / until["gflops_per_image"])
    assert 1.5 < until["arithmetic"] < 2
    assert (alone["fid_difference"], alone["fid_error"]) == (0, 0)
    assert all(row["speedup"] > 0 and row["speedup_3"] > 0 and row["fid_error"] >= 0 for row in found.values())


def test_the_fastest_decoder_within_a_bound_is_chosen(config, tmp_path, capsys, monkeypatch):
    # a call of the draft takes 1 s, one of the target 10 s: the draft alone is the fastest, and then refinement
    costs = Costs((1.0,) * 3, (10.0,) * 3, batch=2)
    monkeypatch.setattr(Costs, "measure", lambda *arguments: costs)
    losses = {"draft only": 0.5, "refine (large_scales 1)": 0.009}
    whole = Bench.row
    asked = []

    def row(self, case):
        asked.append(case.label)
        return whole(self, case) | {"fid_change": losses.get(case.label, 0.0)}

    monkeypatch.setattr(Bench, "row", row)
    grid = [*SHORT, "--large_scales", "[1,2]", "--entry_nums", "[]", "--acceptances", "[]", *EXTRACTOR]
    main(["bench", "decode", "--config", config, *grid, "--choose", "quality<=1%"])
    assert asked == ["draft only", "refine (large_scales 1)", "target only"]
    out = capsys.readouterr().out
    assert "The fastest decoder with quality<=1% is refine (large_scales 1)" in out
    chosen = yaml.safe_load(out[out.index("\nmodel:") :])
    kind = "litscale.models.sdvar.Refine"
    decoder = {"class_path": kind, "init_args": {"large_scales": 1}}
    assert chosen["model"]["init_args"] == {"generation": asdict(VARGeneration(0.5)), "decoder": decoder}
    # 10 + 1 + 1 seconds, where the draft reads the first scale together with its own first one
    assert rows(tmp_path / "run")["refine (large_scales 1)"]["network_ms"] == pytest.approx(1e3 * (10 + 2 + 1) / 2)
    # and it is a layer
    layer = tmp_path / "layer.yaml"
    layer.write_text(yaml.safe_dump(chosen))
    main(
        [
            "bench",
            "decode",
            "--config",
            config,
            "--config",
            str(layer),
            *SHORT,
            "--acceptances",
            "[]",
            "--entry_nums",
            "[]",
        ]
    )
    assert list(rows(tmp_path / "run")) == ["target only", "draft only", "refine (large_scales 1)"]


def test_options_of_decoders_as_a_config_has_them():
    model = lit_sdvar()
    pair = model.draft, model.target
    rule = decoder_options(Speculative(*pair, gamma=AdaptiveGamma(high=5), acceptance=KL(0.3)))
    assert rule["acceptance"] == {
        "class_path": "litscale.models.sdvar.acceptance.KL",
        "init_args": {"threshold": 0.3, "partial": False},
    }
    assert rule["gamma"]["init_args"]["high"] == 5
    assert decoder_options(Speculative(*pair, gamma=2))["gamma"] == 2
    assert (bound_of("quality<=1%"), bound_of("quality <= .5")) == (0.01, 0.5)
    with pytest.raises(ValueError, match=r"choose must be like 'quality<=1%' or 'quality<=0.01', not 'speed>2'"):
        bound_of("speed>2")


def test_a_layer_has_all_options_of_generation():
    model = lit_sdvar(generation=VARGeneration(cfg=0.5, cfg_until=2))
    change = {"top_k": [0, 0, 1], "temperature": 0.5, "prune": {"from_scale": 2, "ratios": [0.5]}}
    options = changed(model.generation.complete(), change, scales=3)
    assert options == VARGeneration(0.5, (0, 0, 1), temperature=0.5, prune=Pruning(2, (0.5,)))
    written = yaml.safe_load(layer(Case("row", model.decoder, options), model))
    others = {"cfg": 0.5, "top_p": 0.0, "greedy": False, "smooth": False, "cfg_until": None}
    assert written == {"model": {"init_args": {"generation": change | others}}}
    words = ["top_k 1 from scale 2", "temperature 0.5", "pruned from scale 2 to 0.5"]
    assert changes(options, model.generation.complete()) == words
    assert changes(replace(options, top_k=(3, 3, 1)), options) == ["top_k 3", "top_k 1 from scale 2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 1}, "--generations.top: there is no such option"),
        ({"top_k": "many"}, "--generations.top_k many: expected a whole number or a list"),
        ({"top_k": [0, -1]}, "top_k must not be negative, not -1"),
        ({"top_p": [0, 0, 0.5, 0.9]}, "top_p has 4 values, one for each scale, but there are 3 scales"),
        ({"prune": {"from_scale": 0, "ratios": [0.5]}}, "from_scale must be at least 1, not 0"),
        ({"prune": {"from_scale": 3, "ratios": [0.5]}}, "prune has ratios up to scale 3, but the last scale is 2"),
        ({"cfg_until": 4}, "cfg_until is 4, but must be in 0..3, the number of scales"),
    ],
)
def test_bad_generations(change, message):
    with pytest.raises(ValueError, match=message):
        changed(VARGeneration(), change, scales=3)


def test_the_front_is_what_no_other_beats():
    places = {"a": (1.0, 0.0), "b": (2.0, 0.1), "c": (1.5, 0.2), "d": (3.0, 0.3), "e": (0.9, 0.0)}
    assert front(places, lower_is_better=True) == ["d", "b", "a"]
    assert front({"a": (1.0, 1.0), "b": (2.0, 0.9), "c": (1.5, 0.8)}, lower_is_better=False) == ["b", "a"]


def test_labels_are_beside_their_points_and_free_of_others():
    far = np.array([[0.0, 0.0], [500.0, 0.0]])
    assert (label_offsets(far) == OFFSETS[0]).all()
    # a point where the first label would be, and three at one place
    crowd = np.array([[0.0, 0.0], *OFFSETS[:1], [300.0, 0.0], [300.0, 0.0], [300.0, 1.0]])
    offsets = label_offsets(crowd)
    assert (offsets[0] == OFFSETS[1]).all()
    labels = crowd + offsets
    for i, label in enumerate(labels):
        assert np.linalg.norm(np.delete(labels, i, axis=0) - label, axis=1).min() > 9
        assert np.linalg.norm(np.delete(crowd, i, axis=0) - label, axis=1).min() > 9


def test_an_interrupted_benchmark_goes_on(config, tmp_path, monkeypatch):
    arguments = ["bench", "decode", "--config", config, *SHORT, "--acceptances", "[Coupled]", "--entry_nums", "[]"]
    measured, whole = [], Bench.row

    def row(self, case):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(case.label)
        return whole(self, case)

    monkeypatch.setattr(Bench, "row", row)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    monkeypatch.setattr(Bench, "row", lambda self, case: measured.append(case.label) or whole(self, case))
    main(arguments)
    assert measured == list(rows(tmp_path / "run")) and len(measured) == len(set(measured)) == 5  # noqa: PT018
    assert "fid" not in rows(tmp_path / "run")["target only"]
    # other settings start again
    (tmp_path / "run" / "bench_decode_unfinished.json").write_text(json.dumps({"key": "other", "rows": {"x": {}}}))
    measured.clear()
    main(arguments)
    assert len(measured) == 5


def test_a_profile_has_the_time_of_each_part(config, tmp_path):
    arguments = ["bench", "decode", "--config", config, *SHORT, "--acceptances", "[KL]", "--entry_nums", "[]"]
    main([*arguments, "--profile", "true"])
    for row in rows(tmp_path / "run").values():
        parts = [row[f"{part}_ms"] for part in ("draft", "target", "sampling", "vae")]
        assert 0 < sum(parts) <= row["wall_ms"]
    assert rows(tmp_path / "run")["target only"]["draft_ms"] == 0 < rows(tmp_path / "run")["draft only"]["draft_ms"]
    assert "| tokenizer ms |" in (tmp_path / "run" / "bench_decode.md").read_text()
    main(arguments)
    assert "wall_ms" not in rows(tmp_path / "run")["target only"]


def test_rounds_of_other_decoders_do_not_count(config, tmp_path, monkeypatch):
    arguments = ["bench", "decode", "--config", config, *SHORT, "--entry_nums", "[]", "--speed_batches", "[1,2]"]
    whole = Bench.seconds

    def seconds(self, cases, batch, seed):
        if batch == 2:
            raise KeyboardInterrupt
        return whole(self, cases, batch, seed)

    monkeypatch.setattr(Bench, "seconds", seconds)
    with pytest.raises(KeyboardInterrupt):
        main([*arguments, "--acceptances", "[]"])
    monkeypatch.setattr(Bench, "seconds", whole)
    main([*arguments, "--acceptances", "[KL]"])
    assert len(rows(tmp_path / "run")) == 5
    assert all(row["speedup"] > 0 for row in rows(tmp_path / "run").values())


def test_sigterm_ends_a_benchmark_at_once(config, tmp_path, monkeypatch):
    arguments = ["bench", "decode", "--config", config, *SHORT, "--acceptances", "[Coupled]", "--entry_nums", "[]"]
    before, whole = signal.getsignal(signal.SIGTERM), Bench.row
    # or the tests would end, too
    monkeypatch.setattr(signals, "GRACE", 3600.0)
    monkeypatch.setattr(signals, "_ending", threading.Event())
    labels = []

    def row(self, case):
        if len(labels) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            labels.append("went on")
        labels.append(case.label)
        return whole(self, case)

    monkeypatch.setattr(Bench, "row", row)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 143
    assert list(json.loads((tmp_path / "run" / "bench_decode_unfinished.json").read_text())["rows"]) == labels
    assert len(labels) == 2
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_checkpoint_wins_over_files(config, tmp_path):
    quick = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1"]
    main(["fit", "--config", config, *quick, "--model.fit_images", "4"])
    (path,) = (tmp_path / "run" / "checkpoints").glob("*.ckpt")
    run = ["bench", "decode", "--config", str(tmp_path / "run" / "config.yaml"), "--ckpt_path", str(path), *SHORT]
    state = torch.load(path, weights_only=True)
    state["state_dict"]["draft.head.bias"][0] += 5
    other = tmp_path / "other.ckpt"
    torch.save(stamp(state), other)
    run += ["--seeds", "1", "--acceptances", "[KL]", "--entry_nums", "[]", "--model.draft_checkpoint", "gone.ckpt"]
    main([*run, "--drafts", f"{{again: {path}, changed: {other}}}"])
    found = rows(tmp_path / "run")
    assert found["target only"]["token_agreement"] == 1
    assert len(found) == 2 + 3 + 2 * 4
    same = ("token_agreement", "target_calls_per_image")
    assert all(found["again: draft only"][name] == found["draft only"][name] for name in same)
    assert found["changed: draft only"]["token_agreement"] != found["draft only"]["token_agreement"]
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"drafts .*list.pth holds no state dict"):
        main([*run, "--drafts", f"{{bad: {tmp_path / 'list.pth'}}}"])
    with pytest.raises(FileNotFoundError, match=r"drafts gone.ckpt: no such file"):
        main([*run, "--drafts", "{bad: gone.ckpt}"])


def test_each_decoder_is_measured_once():
    adaptive = AdaptiveGamma()
    model = lit_sdvar(decoder=partial(Speculative, gamma=2))
    grid = decoders(
        model,
        gammas=[2, adaptive],
        acceptances=[Coupled(), KL(0.3)],
        thresholds=None,
        entry_nums=[1, 2],
        masks=["causal", "none"],
    )
    assert len(grid) == 2 + 4 + 4
    assert {name: grid[name].gamma for name in grid if "KL" in name} == {
        "speculative (gamma 2, KL, threshold 0.3)": FixedGamma(2),
        "speculative (gamma AdaptiveGamma, KL, threshold 0.3)": adaptive,
    }


def test_costs_say_what_to_draft(config, tmp_path, monkeypatch, capsys):
    # on the second scale the target is slow: the first is drafted, and one call makes both
    costs = Costs((0.001, 0.1, 0.1), (0.01, 0.2, 0.02), 0.01)
    asked = []
    monkeypatch.setattr(Costs, "measure", lambda *arguments: asked.append(arguments[2:]) or costs)
    main(["bench", "costs", "--config", config, "--batch_size", "5", "--acceptance", "1.0"])
    assert asked == [(5, VARGeneration(cfg=0.5), 3)]
    found = json.loads((tmp_path / "run" / "bench_costs.json").read_text())
    given = {"draft": [0.001, 0.1, 0.1], "target": [0.01, 0.2, 0.02], "overhead": 0.01}
    assert found["costs"] == given | {"draft_overhead": 0.0, "batch": 1}
    # 0.001 + 0.2 (scales 0 and 1 in one call), then 0.02; no drafting takes 0.23, two scales 0.101 + 0.21
    assert (found["gammas"], found["seconds"]) == ([1, 0, 0], pytest.approx(0.221))
    assert found["entry_num"] == 1
    out = capsys.readouterr().out
    assert "221 ms expected, 230 ms of the target alone; the fastest collaborative decoding has entry_num 1" in out
    with pytest.raises(ValueError, match=r"acceptance in 0\.\.1"):
        main(["bench", "costs", "--config", config, "--acceptance", "1.5"])


def test_masks_are_drawn(config, tmp_path):
    main(["bench", "masks", "--config", config, "--entry_num", "1"])
    with Image.open(tmp_path / "run" / "masks.png") as picture:
        assert picture.format == "PNG"
    with pytest.raises(ValueError, match=r"entry_num must be in 0\.\.2 to have an entry scale, not 3"):
        main(["bench", "masks", "--config", config, "--entry_num", "3"])


def test_help(capsys):
    main(["--help"])
    assert "bench decode" in capsys.readouterr().out
    for words, expected in (
        (["bench", "--help"], "Decode the same labels in many ways"),
        (["bench", "decode", "--help"], "numbers of the draft's scales in collaborative decoding"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        out = capsys.readouterr().out
        assert expected in " ".join(out.split())
        assert len(out.splitlines()) <= 100


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("decode", "path of a checkpoint of LitSDVAR, last or best; without it, the model reads the files"),
        ("fractal", "path of a checkpoint of the config's network, last or best; without it, its weights are random."),
        ("costs", None),
        ("masks", None),
    ],
)
def test_help_is_of_the_benchmark(name, checkpoint, capsys):
    with pytest.raises(SystemExit):
        main(["bench", name, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert ("--ckpt_path" in out) == (checkpoint is not None)
    assert (checkpoint or "") in out
    shown = {word for word in out.split() if word.startswith("--trainer.")}
    assert shown == {f"--trainer.{option}" for option in ("default_root_dir", "accelerator", "devices", "precision")}
    assert "--trainer.devices 1, since a benchmark runs on one device" in out
    assert not any(word in out for word in ("resume", "fit ", "max_epochs", "min_steps"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--entry_nums", "[4]"], ValueError, r"entry_num must be in 0\.\.3, the number of scales, not 4"),
        pytest.param(["--masks", "[half]"], ValueError, "unknown mask 'half'", marks=SLOW),
        pytest.param(["--gammas", "[0]"], ValueError, "gamma must be at least 1", marks=SLOW),
        (["--seeds", "0"], ValueError, "num_images, batch_size and seeds must be at least 1"),
        (["--ckpt_path", "gone.ckpt"], FileNotFoundError, "--ckpt_path gone.ckpt: no such file"),
        (["--model.target_checkpoint", "gone.ckpt"], FileNotFoundError, "target_checkpoint gone.ckpt: no such file"),
        (["--trainer.devices", "2"], ValueError, "a benchmark runs on one device: set trainer.devices to 1, not 2"),
        (["--repeats", "0"], ValueError, "repeats and speed_batches must be at least 1"),
        (["--choose", "quality<=1%"], ValueError, "choose compares Frechet distances: give features, or leave it out"),
        (["--large_scales", "[4]"], ValueError, r"large_scales must be in 0\.\.3, the number of scales, not 4"),
        ([*EXTRACTOR, "--data.size", "16"], ValueError, r"the data has canvases of \[1, 16, 16\]"),
        ([*EXTRACTOR, "--reference", "gone.npz"], FileNotFoundError, "gone.npz"),
    ],
)
def test_bad_options(config, arguments, error, message):
    with pytest.raises(error, match=message):
        main(["bench", "decode", "--config", config, "--untrained", "true", *arguments])


def test_random_networks_are_measured_only_if_asked_for(config):
    ways = r"--ckpt_path, such as .* \(or --model.draft_checkpoint and --model.target_checkpoint\), or --untrained true"
    with pytest.raises(ValueError, match=f"litscale bench decode was given no weights: give {ways}"):
        main(["bench", "decode", "--config", config])


def test_real_images_are_needed():
    with pytest.raises(ValueError, match="features: there are no real images to compare with; give data with canvases"):
        Quality(Patches(), None, None)


def test_only_pairs_are_benchmarked(config, tmp_path):
    settings = yaml.safe_load(Path(config).read_text())
    network = settings["model"]["init_args"]["target"]
    network["init_args"]["vqvae"] = settings["model"]["init_args"]["vqvae"]
    settings["model"] = {"class_path": "lit_models.LitVAR", "init_args": {"network": network}}
    Path(config).write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match="litscale bench takes a LitSDVAR, not LitVAR"):
        main(["bench", "decode", "--config", config])
