"""The pictures of the README are made from what the demos left; the pixels of sheets are put there by hand."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# in place of Chromium: a picture of the size of the window, as dark as the page says
BROWSER = """#!{python}
import sys
from pathlib import Path
from urllib.request import url2pathname

from PIL import Image

given = dict(word.split("=") for word in sys.argv if "=" in word)
size = tuple(int(side) for side in given["--window-size"].split(","))
page = Path(url2pathname(sys.argv[-1].removeprefix("file://"))).read_text()
Image.new("L", size, int(page)).save(given["--screenshot"])
"""


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("pictures")


@pytest.fixture
def pictures(program, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # what the browser and the models would draw
    monkeypatch.setattr(program, "screenshots", lambda page, chromium: grey(page.stat().st_size))
    monkeypatch.setattr(
        program.subprocess, "run", lambda command, check: grey(77).save(command[-1]) if "demo" in str(command[2]) else 1
    )
    monkeypatch.setattr(program, "coupled", lambda run: run)
    monkeypatch.setattr(program, "timeline", lambda run: grey(200 + (run.name == "sdvar_digits")))
    monkeypatch.setattr(program, "write_picture", lambda picture, path: picture.save(path))
    monkeypatch.setattr("sys.argv", ["pictures.py", "--images", "images"])
    Path("images").mkdir()
    return program


def grey(value, size=8):
    return Image.new("RGB", (size, size), (value, value, value))


def predictions(run, values):
    """Write samples of one grey each, with three steps that become brighter."""
    folder = Path("runs") / run / "predictions" / "samples_new"
    folder.mkdir(parents=True)
    for number, value in enumerate(values):
        grey(value).save(folder / f"sample_{number:05}.png")
        steps = [grey(value + step) for step in (0, 50, 100)]
        steps[0].save(folder / f"sample_{number:05}.gif", save_all=True, append_images=steps[1:])


def test_every_picture_comes_from_a_run(pictures):
    old = Path("runs/digits_mar/predictions/samples_old")
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    predictions("demo", [5])
    Path("runs/demo/report.html").write_text("x" * 33)
    predictions("digits_mar", range(0, 100, 5))
    predictions("digits_var_target", range(1, 101, 5))
    predictions("clothes", [7])
    for number, name in enumerate(("clothes/predictions/samples_new/sheet", "clothes/predictions/samples_new/steps")):
        grey(220 + number).save(f"runs/{name}.png")
    for name in ("sdvar_digits", "bench_fashion"):
        Path("runs", name).mkdir()
    grey(210).save("runs/bench_fashion/bench_decode.png")
    grey(215).save("runs/sdvar_digits/decode_test.png")  # of another rule
    Path("runs/music/predictions/samples_new").mkdir(parents=True)
    Path("runs/music/predictions/samples_new/sample_00000.svg").write_text("<svg />")
    # newer, but no samples of the model alone
    Path("runs/music/predictions/prefix_song").mkdir()
    Path("runs/music/predictions/prefix_song/sample_00000.svg").write_text("<svg id='song' />")
    os.utime("runs/music/predictions/samples_new", (0, 0))
    pictures.main()
    assert Path("images/chorale.svg").read_text() == '<svg style="background: white" />'
    docs = BENCHMARKS.parent / "docs" / "images"
    drawn = {path.name for path in docs.iterdir() if not path.name.startswith("badge_")}  # those are written by hand
    assert {path.name for path in Path("images").iterdir()} == drawn
    found = {path.stem: np.asarray(Image.open(path).convert("L")) for path in Path("images").glob("*.png")}
    wanted = {"sample": 5, "settling": 77, "report": 33, "timeline": 201, "decoders": 210}
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


def test_a_report_is_drawn_in_a_wide_and_in_a_narrow_window(program, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(BROWSER.format(python=sys.executable))
    browser.chmod(0o755)
    page = tmp_path / "a report.html"
    page.write_text("100")
    drawn = program.screenshots(page, browser)
    assert drawn.size == (1020, 1020 * 1560 // 1700)
    row = np.asarray(drawn)[10, :, 0]
    # 1280, 30 white and 390 of 1700 pixels
    assert [row[place * 1020 // 1700] for place in (640, 1295, 1500)] == [100, 255, 100]


def test_without_a_browser_one_line_says_so(program, tmp_path):
    with pytest.raises(SystemExit, match=r"^nowhere: no such program; the picture of the report needs Chromium"):
        program.screenshots(tmp_path / "report.html", Path("nowhere"))
