"""The pictures of the README are made from what the demos left; the pixels of sheets are put there by hand."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def pictures(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("pictures")
    monkeypatch.chdir(tmp_path)
    # what the browser and the model would draw
    monkeypatch.setattr(module, "screenshots", lambda page, chromium: grey(page.stat().st_size))
    monkeypatch.setattr(
        module.subprocess, "run", lambda command, check: grey(77).save(command[-1]) if "demo" in str(command[2]) else 1
    )
    monkeypatch.setattr("sys.argv", ["pictures.py", "--images", "images"])
    Path("images").mkdir()
    return module


def grey(value, size=8):
    return Image.new("RGB", (size, size), (value, value, value))


def predictions(run, values):
    """Write samples of one grey each, with three steps that become brighter."""
    folder = Path("runs") / run / "predictions" / "new"
    folder.mkdir(parents=True)
    for number, value in enumerate(values):
        grey(value).save(folder / f"sample_{number:05}.png")
        steps = [grey(value + step) for step in (0, 50, 100)]
        steps[0].save(folder / f"sample_{number:05}.gif", save_all=True, append_images=steps[1:])


def test_every_picture_comes_from_a_run(pictures):
    old = Path("runs/digits_mar/predictions/old")
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    predictions("demo", [5])
    Path("runs/demo/report.html").write_text("x" * 33)
    predictions("digits_mar", range(0, 100, 5))
    predictions("digits_var_target", range(1, 101, 5))
    predictions("clothes", [7])
    for number, name in enumerate(("clothes/predictions/new/sheet", "clothes/predictions/new/steps")):
        grey(220 + number).save(f"runs/{name}.png")
    for number, name in enumerate(("sdvar_digits/decode_test", "bench_fashion/bench_decode")):
        Path("runs", name).parent.mkdir()
        grey(200 + number).save(f"runs/{name}.png")
    Path("runs/music/predictions/new").mkdir(parents=True)
    Path("runs/music/predictions/new/sample_00000.svg").write_text("<svg />")
    pictures.main()
    assert Path("images/chorale.svg").read_text() == '<svg style="background: white" />'
    docs = BENCHMARKS.parent / "docs" / "images"
    drawn = {path.name for path in docs.iterdir() if not path.name.startswith("badge_")}  # those are written by hand
    assert {path.name for path in Path("images").iterdir()} == drawn
    found = {path.stem: np.asarray(Image.open(path).convert("L")) for path in Path("images").glob("*.png")}
    wanted = {"sample": 5, "settling": 77, "report": 33, "timeline": 200, "decoders": 201}
    wanted |= {"clothes": 220, "clothes_steps": 221}
    assert {name: found[name][0, 0] for name in wanted} == wanted
    # two rows of ten and four rows of three steps, each of 64 pixels with 2 between them
    assert found["digits"].shape == (134, 662)
    assert [found["digits"][33, 33 + 66 * column] for column in range(10)] == list(range(0, 50, 5))
    assert found["digits"][99, 33] == 50
    assert found["digits"][0, 0] == found["digits"][66, 33] == 255
    assert found["var_steps"].shape == (266, 200)
    assert [found["var_steps"][33 + 66, 33 + 66 * column] for column in range(3)] == [6, 56, 106]


def test_a_missing_run_names_its_demo(pictures):
    with pytest.raises(SystemExit, match=r"^runs/demo/predictions: no such file; run `make demo` first$"):
        pictures.main()
    Path("runs/demo/predictions").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"^runs/demo/predictions has no .png; run `make demo` first$"):
        pictures.main()
