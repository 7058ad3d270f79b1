"""The benchmarks run; what they measure is for benchmarks/RESULTS.md."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from idx_files import write_idx

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def table(script, *options, repeats=True):
    """Cells of all lines of the Markdown tables that a benchmark prints."""
    command = [sys.executable, str(SCRIPTS / script), *options, *(["--repeats", "1"] if repeats else [])]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line[:1] == "|"]


@pytest.mark.slow
def test_fractal_speed_prints_both_tables():
    rows = table("fractal_speed.py", "--width", "32", "--blocks", "1")
    assert [row[0] for row in rows] == ["patches", "---", "64", "256", "1024"] * 2


@pytest.mark.slow
def test_image_speed_breaks_the_time_down_by_level():
    rows = table("image_speed.py", "--models", "fractalar_in64", "--patches", "2", "--batches", "1", "2")[2:]
    assert [row[1:3] for row in rows] == [["train", "1"], ["sample", "1"], ["train", "2"], ["sample", "2"]]
    for row in rows:
        assert sorted(part.rsplit(maxsplit=1)[0] for part in row[5].split(", ")) == ["leaf", "level 0", "level 1"]


@pytest.mark.slow
def test_var_speed_breaks_the_time_down_by_scale():
    rows = table("var_speed.py", "--models", "var_d16", "--patch-nums", "1", "2", "3", "--batches", "1", "2")[2:]
    assert [row[:2] for row in rows] == [["var_d16", "1"], ["var_d16", "2"]]
    for row in rows:
        parts = {part.rsplit(maxsplit=1)[0] for part in row[4].split(", ")}
        assert parts == {"classes", "scale 0", "scale 1", "scale 2", "residual chain", "decoder"}


@pytest.mark.slow
def test_attention_speed_compares_the_candidates():
    rows = table("attention_speed.py", "--shapes", "16 px", "64 px", "--batches", "2", "1")[2:]
    assert [row[:2] for row in rows] == [["16 px", "30"]] * 2 + [["64 px", "155"]] * 2
    assert [row[3] for row in rows] == ["forward", "forward and backward"] * 2
    for row in rows:
        assert all(float(cell) > 0 for cell in (row[4], row[5], row[7]))


@pytest.mark.slow
def test_decode_speed_prints_both_tables():
    shapes = ["--draft", "1", "16", "2", "--target", "2", "32", "2", "--patch-nums", "1", "2", "3", "--vocab", "16"]
    rows = table("decode_speed.py", *shapes, "--batches", "1", "2", "--gammas", "1", "3")
    speeds, even = rows[:18], rows[18:]
    assert [row[:3] for row in speeds[2:]] == [
        [batch, gamma, rate] for batch in "12" for gamma in "13" for rate in ("0.0", "0.5", "0.8", "1.0")
    ]
    assert [row[3] for row in speeds[2:] if row[2] == "0.0"] == ["3.00"] * 4
    assert [row[3] for row in speeds[2:] if row[2] == "1.0"] == ["2.00", "1.00"] * 2
    assert [row[:2] for row in even[2:]] == [["1", "1"], ["1", "3"], ["2", "1"], ["2", "3"]]


@pytest.mark.slow
def test_optimizer_speed_compares_both_updates():
    ((*cells,),) = table("optimizer_speed.py", "--width", "64", "--blocks", "2")[2:]
    assert cells[0] == "0.1 M"
    assert all(float(cell) > 0 for cell in cells[1:])


@pytest.mark.slow
def test_thread_speed_compares_one_thread_and_two():
    rows = table("thread_speed.py", "--widths", "64", "128", "--rows", "1", "2")[2:]
    assert [row[:2] for row in rows] == [["64", "1"], ["64", "2"], ["128", "1"], ["128", "2"]]


@pytest.mark.slow
def test_weights_speed_prints_both_tables():
    rows = table("weights_speed.py", "--patches", "1", "--batches", "1", "2", "--cfgs", "1", "3")
    each = [[batch, cfg, weights] for batch in "12" for cfg in "13" for weights in ("float32", "bfloat16", "int8")]
    assert [row[:3] for row in rows[2:14]] == [row[:3] for row in rows[16:]] == each
    assert [row[-1] for row in rows if row[2] == "float32"] == ["1.00"] * 8


@pytest.mark.slow
def test_what_is_measured_of_a_run_of_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    words = ["fit", "--config", "digits/fractal_mar.yaml", *quick]
    subprocess.run([sys.executable, "-m", "litscale", *words], check=True, capture_output=True, timeout=900)
    rows = table("mar_schedules.py", "runs/digits_mar", "--steps", "2", "4")
    assert [row[:3] for row in rows[2:]] == [["0", "16", "2"], ["0", "16", "4"], ["1", "4", "2"]]
    for row in rows[2:]:
        cosine, linear, best = (float(cell) for cell in row[3:6])
        assert best <= min(cosine, linear)
        assert row[6].split(", ")[-1] == "0"
    rows = table("token_cache.py", "runs/digits_mar", "--batches", "1", "2", "--periods", "2", "[16, 1]")
    assert [row[:2] for row in rows[2:]] == [[batch, period] for batch in "12" for period in ("1", "2", "[16, 1]")]


@pytest.mark.slow
def test_settling_picture_draws_a_piece(tmp_path):
    bach = SCRIPTS.parent / "litscale" / "pretrained" / "bach"
    picture, weights = tmp_path / "settling.png", bach / "model.safetensors"
    command = [sys.executable, SCRIPTS / "settling_picture.py", bach, picture, "--checkpoint", weights]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900).stdout
    assert 1 < float(told.split()[0]) < 48
    assert told.endswith(" passes per patch of 48 cells\n")
    assert picture.stat().st_size


@pytest.mark.slow
def test_tokenizer_ablation_trains_tests_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST", str(write_idx(tmp_path / "pictures")))
    monkeypatch.setenv("LITSCALE_CACHE", str(tmp_path / "cache"))
    command = ["--steps", "2", "--rows", "nothing", "SimVQ", "--folder", str(tmp_path), "--data.batch_size", "20"]
    rows = table("tokenizer_ablation.py", *command, repeats=False)
    assert [row[0] for row in rows] == ["remedy", "---", "nothing", "SimVQ"]
    assert rows[0][3:] == [f"scale {k}" for k in range(8)]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows[2:])
    folders = [tmp_path / f"{name}_2_steps" for name in ("nothing", "SimVQ")]
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
    networks = [config["model"]["init_args"]["network"]["init_args"] for config in configs]
    assert [(made["simvq"], made["entropy"], made["znorm"]) for made in networks] == [
        (False, 0, False),
        (True, 0, False),
    ]
    (folders[1] / "checkpoints" / "last.ckpt").unlink()  # what is done is not done again
    assert table("tokenizer_ablation.py", *command, repeats=False) == rows
    # a training of another length is another one
    longer = ["--steps", "3", "--rows", "nothing", *command[command.index("--folder") :]]
    assert table("tokenizer_ablation.py", *longer, repeats=False)[2] != rows[2]


@pytest.mark.slow
def test_feature_power_compares_two_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST", str(write_idx(tmp_path / "pictures", {"train": 600, "t10k": 20})))
    monkeypatch.setenv("LITSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    configs = SCRIPTS.parent / "configs" / "fashion_mnist"
    quick = ["--trainer.max_steps", "1", "--data.batch_size", "20", "--trainer.limit_val_batches", "0"]
    small = ["--model.network.depth", "1", "--model.network.width", "16", "--model.network.heads", "2"]
    small += ["--model.optimization.lr", "0"]
    for name, options in (("vqvae", []), ("var_target", small), ("var_draft", small)):
        words = ["fit", "--config", str(configs / f"{name}.yaml"), *quick, *options]
        subprocess.run([sys.executable, "-m", "litscale", *words], check=True, capture_output=True, timeout=900)
    runs = ["runs/fashion/var_target", "runs/fashion/var_draft"]
    rows = table("feature_power.py", *runs, "--seeds", "2", "--num-images", "20", repeats=False)
    assert [row[0] for row in rows[2:]] == ["Frechet distance", "precision", "recall", "class accuracy"]
    assert rows[0][1:3] == runs
    for row in rows[2:]:  # the heads of new networks are zero, so both draw the same
        assert row[1] == row[2]
        assert row[3:] == ["0 ± 0", "0.0"]
