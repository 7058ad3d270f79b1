"""The command line as a user meets it: from a folder of MIDI files to generated files, and what bad input says."""

import json
import logging
import os
import pickle

import pytest
import torch
import yaml
from wandb_files import offline_history, records

from litscale import music

SLOW = pytest.mark.slow  # the constructors' own tests hold the same error
SAVED = {"checkpoints", "config.yaml", "manifest.json"}  # and the diff of the code, if there is one


class Payload:
    """What a hostile pickle would hold."""

    def __reduce__(self):
        return print, ("this ran",)


def test_from_midi_to_midi(tmp_path, monkeypatch, capsys, caplog, config, midi_folder):
    from litscale.cli.main import main

    monkeypatch.chdir(tmp_path)
    prefix = midi_folder / "piece_0.mid"
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        main(["fit", "--config", str(config)])
    run = tmp_path / "run"
    assert "max_steps=12" in caplog.text
    assert {path.name for path in run.iterdir() if path.name[0] != "." and path.suffix != ".diff"} - SAVED == {"logs"}
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["network"]["init_args"]["generators"] == ["ar", "mar", "mar"]
    header = (run / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    wanted = {"train/loss", "train/loss/leaf", "train/loss/level_1", "train/mask_fraction/level_1", "train/entropy"}
    wanted |= {"grad_norm/total", "grad_norm/level_0", "grad_norm/leaf", "val/nats_per_step", "val/bits_per_dim"}
    assert wanted <= set(header.split(","))
    # from here on, the checkpoint and its saved config alone
    known = ["--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt"]
    writer = "--trainer.callbacks+=callbacks.PredictionWriter"
    main(["test", *map(str, known)])
    assert "test/nats_per_step" in capsys.readouterr().out
    assert yaml.safe_load((run / "config.yaml").read_text()) == saved
    options = ["--data.predict.prefix", prefix, "--data.predict.prefix_steps", 10, "--data.predict.length", 24]
    options += ["--trainer.callbacks.gif", "true", "--trainer.callbacks.wav", "true", "--data.predict.num_samples", 2]
    main(["predict", *map(str, [*known, writer, *options])])
    (predictions,) = (run / "predictions").iterdir()
    assert predictions.name.startswith("prefix_piece_0_10_steps-step_12-")
    files = sorted(path.name for path in predictions.iterdir())
    assert files == [f"sample_{i:05d}.{end}" for i in range(2) for end in ("gif", "json", "mid", "png", "wav")]
    given = music.read_midi(prefix, velocity_bins=1).symbols[:, :10]
    for i in range(2):
        sample = music.read_midi(predictions / f"sample_{i:05d}.mid", velocity_bins=1)
        assert sample.steps == 24
        assert (sample.symbols[:, :10] == given).all()
    record = json.loads((predictions / "sample_00000.json").read_text())
    assert record["settings"]["temperature"] == 1.0
    assert (record["request"]["prefix"], record["request"]["prefix_steps"]) == (str(prefix), 10)


@pytest.mark.filterwarnings("ignore:pitch_range 48..60 cuts")
@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("fit", ["--data.folder", "nowhere"], "nowhere"),
        ("fit", ["--data.folder", "."], "no .mid or .midi file"),
        ("fit", ["--data.window", "96"], "window"),
        ("fit", ["--data.pitch_range", "[48,60]"], "make the network's codec, velocity_bins and sizes[0] agree"),
        pytest.param(
            "fit",
            ["--model.network.widths", "[16,16]"],
            "widths has 2 entries, but 3 generators and a leaf need 4",
            marks=SLOW,
        ),
        pytest.param(
            "fit",
            ["--model.network.generators", "[ar,mar,gan]"],
            "generators must be among ar, mar, not 'gan'",
            marks=SLOW,
        ),
        ("fit", ["--model.network.sizes", "[[24,16],[24,1],[9,1],[1,1]]"], "a patch of 9x1 does not divide"),
        pytest.param(
            "fit",
            ["--model.generation.order", "spiral"],
            "order must be among random, raster, confidence, not 'spiral'",
            marks=SLOW,
        ),
        pytest.param(
            "fit", ["--model.generation.temperature", "-1"], "temperature must be positive, not -1", marks=SLOW
        ),
        pytest.param("fit", ["--model.generation.iterations", "0"], "iterations must be at least 1, not 0", marks=SLOW),
        ("fit", ["--model.generation.iterations", "[4,4]"], "iterations has 2 entries for 3 levels"),
        (
            "fit",
            ["--ckpt_path", "nowhere.ckpt"],
            "--ckpt_path nowhere.ckpt: no such file; give the path of a checkpoint, last or best",
        ),
        ("predict", ["--data.predict.prefix", "nowhere.mid"], "nowhere.mid"),
        ("predict", ["--data.predict.prefix", "PIECE", "--data.predict.prefix_steps", "99"], "prefix_steps"),
        ("predict", ["--data.predict.inpaint", "PIECE", "--data.predict.region", "[60,99]"], "region"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, monkeypatch, config, midi_folder, command, options, message):
    from litscale.cli.main import main

    monkeypatch.chdir(tmp_path)
    options = [str(midi_folder / "piece_0.mid") if option == "PIECE" else option for option in options]
    arguments = [command, "--config", str(config), *options, "--trainer.fast_dev_run", "true"]
    arguments += ["--untrained", "true"] if command == "predict" else []
    with pytest.raises((ValueError, OSError)) as raised:
        main(arguments)
    assert message in str(raised.value)


def test_bad_checkpoints_are_refused_before_anything_is_built(tmp_path, monkeypatch, config, capsys):
    from litscale.cli.main import main

    monkeypatch.chdir(tmp_path)
    hostile, cut, bare = tmp_path / "hostile.ckpt", tmp_path / "cut.ckpt", tmp_path / "bare.ckpt"
    torch.save({"state_dict": {}, "extra": Payload()}, hostile)
    torch.save({"state_dict": {"weight": torch.randn(1000)}}, cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    torch.save({"weight": torch.zeros(1)}, bare)
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps(Payload()))
    for path, message in (
        (hostile, "loading it could run code, so it is refused"),
        (plain, "no file of torch.save"),
        (cut, "is damaged or truncated"),
        (bare, "it has no state_dict"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            main(["validate", "--config", str(config), "--ckpt_path", str(path)])
        assert str(path) in str(raised.value)
    assert "this ran" not in capsys.readouterr().out


def test_unreadable_files_among_good_ones_are_skipped_or_refused(tmp_path, monkeypatch, config, midi_folder):
    from litscale.cli.main import main

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "midi"
    folder.mkdir()
    for path in midi_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.mid").write_bytes(b"MThd nonsense")
    arguments = ["fit", "--config", str(config), "--data.folder", str(folder), "--trainer.fast_dev_run", "true"]
    with pytest.warns(UserWarning, match=r"1 of 9 MIDI files cannot be read and are skipped:\n.*broken.mid"):
        main(arguments)
    with pytest.raises(ValueError, match=r"broken.mid"):
        main([*arguments, "--data.strict", "true"])


def test_a_full_disk_leaves_no_half_config(tmp_path, monkeypatch, config):
    from litscale.cli.main import main

    monkeypatch.chdir(tmp_path)
    sync = os.fsync

    def full(descriptor):
        if os.fstat(descriptor).st_ino in {path.stat().st_ino for path in (tmp_path / "run").glob("*.tmp")}:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        main(["fit", "--config", str(config), "--trainer.max_steps", "1"])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", ".owner.json", "logs"}


def test_an_offline_wandb_run_holds_the_logged_keys(tmp_path, monkeypatch, config):
    import wandb

    from litscale.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_NAME", raising=False)
    monkeypatch.delenv("WANDB_TAGS", raising=False)
    logger = ["--trainer.logger", "lightning.pytorch.loggers.WandbLogger", "--trainer.logger.offline", "true"]
    logger += ["--trainer.logger.name", "null"]  # that of the config's own logger would stay
    logger += ["--trainer.logger.dict_kwargs.notes", "token=abc"]
    main(["fit", "--config", str(config), *logger, "--trainer.max_steps", "3"])
    wandb.finish()
    keys = {key for row in offline_history(tmp_path / "run") for key in row}
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/manifest.json")
    assert json.loads(kept.read_text()) == json.loads((tmp_path / "run" / "manifest.json").read_text())
    begun = [record.run for record in records(file.read_bytes()) if record.HasField("run")]
    assert {run.display_name for run in begun} == {"run"}
    assert {tuple(sorted(run.tags)) for run in begun} == {("Fractal", "LitFractal", "PianoRollDataModule")}
    (commit,) = {run.git.commit for run in begun}
    recorded = json.loads(kept.read_text())["attempts"][0]["code"][0]["commit"]
    assert commit == ("" if recorded == "not a repository" else recorded)
    configured = {
        item.key: item.value_json
        for record in records(file.read_bytes())
        for update in (record.run.config, record.config)
        for item in update.update
    }
    assert {"train/loss", "train/loss/level_1", "grad_norm/total", "val/nats_per_step"} <= keys
    assert {"model", "data", "trainer", "manifest"} <= configured.keys()
    assert "token=***" in configured["trainer"]
    assert "token=abc" not in configured["trainer"] + configured["manifest"]
