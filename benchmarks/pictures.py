"""Make the pictures of the README and of the docs again, from the runs of the demos.

    make music clothes demo demo-images demo-var demo-sdvar
    make bench-fashion pictures FASHION_MNIST=FOLDER
    python benchmarks/pictures.py [--runs runs] [--images docs/images]

The picture of the report needs Chromium (``--chromium`` names a program that is not on the path).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import option_parser
from PIL import Image, ImageSequence

from callbacks.reporting.decode_pictures import timeline
from callbacks.reporting.figures import write_picture
from lit_models import LitSDVAR, load_run
from litscale.models.sdvar import Coupled, DecodeReport, Speculative

GAP = 2  # white pixels between pictures of a sheet
SIZE = 64  # of the pictures in a sheet


def main() -> None:
    """Make all pictures, or say which demo has to run first."""
    parser = option_parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", type=Path, default="chromium", help="the browser's program")
    options = parser.parse_args()
    runs, images = options.runs, options.images

    # 1. music: a chorale of the model that comes with litscale; of the demo the first sample, how it came about, in
    #    which pass each cell was settled, and the report
    for ending in ("png", "gif"):
        shutil.copyfile(samples(runs / "demo", "demo", ending)[0], images / f"sample.{ending}")
    score = samples(runs / "music", "music", "svg")[-1].read_text()
    # white also where pages are dark
    (images / "chorale.svg").write_text(score.replace("<svg ", '<svg style="background: white" ', 1))
    settling = Path(__file__).with_name("settling_picture.py")
    subprocess.run([sys.executable, settling, runs / "demo", images / "settling.png"], check=True)
    screenshots(existing(runs / "demo" / "report.html", "demo"), options.chromium).save(images / "report.png")

    # 2. digits: twenty samples, and the steps of the first four (every step of MAR, every scale of VAR)
    for run, demo, name in (("digits_mar", "demo-images", "digits"), ("digits_var_target", "demo-var", "var")):
        pictures = [Image.open(path) for path in samples(runs / run, demo, "png")[:20]]
        sheet(pictures, columns=10).save(images / f"{name}.png")
        animations = [Image.open(path) for path in samples(runs / run, demo, "gif")[:4]]
        frames = [[frame.copy() for frame in ImageSequence.Iterator(animation)] for animation in animations]
        sheet([frame for steps in frames for frame in steps], columns=len(frames[0])).save(images / f"{name}_steps.png")

    # 3. the pair that comes with litscale: samples, how the first ones came about, and speed and quality of decoders
    made = samples(runs / "clothes", "clothes", "png")[0].parent
    for name, picture in (("sheet.png", "clothes.png"), ("steps.png", "clothes_steps.png")):
        shutil.copyfile(made / name, images / picture)
    shutil.copyfile(existing(runs / "bench_fashion" / "bench_decode.png", "bench-fashion"), images / "decoders.png")

    # 4. speculative decoding by the rule that changes no token; the demo's own picture is of one that rejects less
    write_picture(timeline(coupled(existing(runs / "sdvar_digits", "demo-sdvar"))), images / "timeline.png")


def existing(path: Path, demo: str) -> Path:
    """Return the path; exit with a message if the demo has not made it."""
    if not path.exists():
        raise SystemExit(f"{path}: no such file; run `make {demo}` first")
    return path


def samples(run: Path, demo: str, ending: str) -> list[Path]:
    """Return the files of a run's newest samples, in order, without pieces that were continued or filled in."""
    folders = sorted(existing(run / "predictions", demo).glob("samples*"), key=lambda folder: folder.stat().st_mtime)
    found = sorted(folders[-1].glob(f"sample_*.{ending}")) if folders else []
    if not found:
        raise SystemExit(f"{run}/predictions has no .{ending}; run `make {demo}` first")
    return found


def coupled(run: Path) -> DecodeReport:
    """Decode ten digits, one of each class, with a run's pair and ``Coupled``; return what becomes of the scales."""
    pair = load_run(run, "last")
    assert isinstance(pair, LitSDVAR)
    decoder = Speculative(pair.draft, pair.target, gamma=3, acceptance=Coupled())
    return decoder.decode(torch.arange(10), pair.generation, seed=1).report


def sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Arrange pictures of equal size in rows of so many columns, enlarged without smoothing."""
    rows, step = -(-len(pictures) // columns), SIZE + GAP
    whole = Image.new("RGB", (GAP + columns * step, GAP + rows * step), "white")
    for place, picture in enumerate(pictures):
        large = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.NEAREST)
        whole.paste(large, (GAP + place % columns * step, GAP + place // columns * step))
    return whole


def screenshots(page: Path, chromium: Path) -> Image.Image:
    """Take pictures of the beginning of a report in windows of 1280 and of 390 pixels, side by side."""
    if shutil.which(chromium) is None:
        raise SystemExit(f"{chromium}: no such program; the picture of the report needs Chromium, see --chromium")
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for width in (1280, 390):
            path = f"{folder}/{width}.png"
            options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},1560"]
            command = [str(chromium), *options, f"--screenshot={path}", page.resolve().as_uri()]
            subprocess.run(command, check=True, capture_output=True)
            taken.append(Image.open(path).convert("RGB"))
    whole = Image.new("RGB", (sum(picture.width for picture in taken) + 30, taken[0].height), "white")
    for picture, left in zip(taken, (0, taken[0].width + 30), strict=True):
        whole.paste(picture, (left, 0))
    return whole.resize((1020, 1020 * whole.height // whole.width))


if __name__ == "__main__":
    main()
