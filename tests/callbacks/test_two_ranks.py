"""Two processes under DDP see what one process sees, and do nothing twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from callback_toys import LabelledDrawing, ToyRolls, fractal, trainer
from PIL import Image
from rank_runs import two_ranks
from two_ranks import drawn_by_index

from callbacks import MusicEvaluation
from datamodules.images.renderer import ImageRenderer
from lit_models import Generation


def test_two_ranks(tmp_path):
    # One test, since its checks share two processes that take long to start, and pytest-xdist would start them twice.
    folder = tmp_path / "two"
    ranks, output = two_ranks(Path(__file__).with_name("two_ranks.py"), folder)
    check_reports_are_averaged_in_one_collective(ranks)
    check_norms_are_those_of_the_mean_gradient(ranks)
    check_samples_and_attention_are_of_rank_zero(ranks, folder)
    check_music_is_the_same_for_one_rank_and_two(ranks, folder, output, tmp_path / "one")
    check_each_predicted_file_is_written_once(ranks, folder, output)
    check_the_sheet_shows_the_images_of_all_ranks(folder)
    check_what_is_decoded_in_parallel_is_the_same_on_any_number_of_ranks(ranks, tmp_path / "parallel")


def check_reports_are_averaged_in_one_collective(ranks):
    for seen in ranks:
        # Rank 0 has the batches 1 and 4, rank 1 has 2 and 8; the entropy is measured in the second batch alone.
        assert seen["losses"]["train/mask_fraction/level_0"] == 3.75
        assert seen["losses"]["train/loss/leaf"] == 3 * 3.75
        assert seen["losses"]["train/entropy"] == 7
        # Lightning's own are of single numbers.
        assert [shape for shape in seen["collectives"] if shape] == [[4, 2]]


def check_norms_are_those_of_the_mean_gradient(ranks):
    for seen in ranks:
        assert seen["norms"]["grad_norm/level_0"] == pytest.approx(5)
        assert seen["norms"]["grad_norm/leaf"] == pytest.approx(15)


def check_samples_and_attention_are_of_rank_zero(ranks, folder):
    assert [seen["samples"] for seen in ranks] == [1, 0]
    assert sorted(path.name for path in (folder / "samples").rglob("*.*")) == ["sample_00000.mid", "sample_00000.png"]
    assert [path.name for path in (folder / "attention").iterdir()] == ["validate.png"]


def check_music_is_the_same_for_one_rank_and_two(ranks, folder, output, alone):
    run = trainer(alone, callbacks=[MusicEvaluation(num_samples=5, batch_size=2)])
    run.validate(LabelledDrawing(), ToyRolls(num_classes=2), verbose=False)
    expected = {key: value.item() for key, value in run.callback_metrics.items()}
    assert 0 < expected["music/nearest_class"] < 1
    for seen in ranks:
        assert seen["music"] == pytest.approx(expected, rel=1e-5)
    assert [seen["asked"] for seen in ranks] == [[[0, 1], [4]], [[2, 3]]]
    assert [seen["fits"] for seen in ranks] == [2, 0]  # for the baselines and for the sets
    one, two = (json.loads((path / "music_validate.json").read_text()) for path in (alone, folder))
    assert one["nearest_class"] == two["nearest_class"]
    assert (one["samples"], one["windows"]) == (two["samples"], two["windows"]) == (5, 6)
    assert output.count("Likelihood") == 2  # of two evaluations, each by one rank


def check_each_predicted_file_is_written_once(ranks, folder, output):
    files = ranks[0]["files"] + ranks[1]["files"]
    expected = [f"sample_0000{i}.{kind}" for i in range(6) for kind in ("json", "mid", "png")]
    assert sorted(files) == expected
    (written,), (single,) = ((folder / name).iterdir() for name in ("out", "single"))
    assert sorted(path.name for path in written.iterdir()) == expected
    assert min(len(seen["files"]) for seen in ranks) == 6
    assert len(list(single.glob("*.mid"))) == 2
    assert f"Wrote samples to {written}; rank 0 wrote {len(ranks[0]['files'])} of the files" in output


def check_the_sheet_shows_the_images_of_all_ranks(folder):
    (made,) = (folder / "images").iterdir()
    images = np.stack([np.full((1, 16, 16), 40 * number, np.uint8) for number in range(5)])
    names = ["pullover", "sneaker", "pullover", "sneaker", "pullover"]
    expected = ImageRenderer(1, 16).sheet(images, 10, names=names)
    assert np.array_equal(np.asarray(Image.open(made / "sheet.png")), expected)


def check_what_is_decoded_in_parallel_is_the_same_on_any_number_of_ranks(ranks, alone):
    # 1. symbols: two ranks share what one process draws one symbol after the other
    plain = fractal(last="ar")
    plain.generation = Generation(decoding="sequential")
    expected = drawn_by_index(trainer(alone).predict(plain, ToyRolls()))
    assert [list(seen["drawn"]) for seen in ranks] == [["0", "1", "4", "5"], ["2", "3"]]
    assert ranks[0]["drawn"] | ranks[1]["drawn"] == expected
    # 2. counts are added up before they are divided: rank 0 has made three samples, rank 1 two
    reports = []
    for first, count in ((0, 2), (2, 2), (4, 1)):
        module = fractal(last="ar")
        module.generate(batch_size=count, seed=0, index=torch.arange(first, first + count))
        reports.append(module.decoding_counts())
    passes, patches, symbols = (
        sum(report[name] for report in reports) for name in ("patch_passes", "patches", "symbols")
    )
    assert patches == 5 * 4
    decoding = {
        "music/decoding/passes": sum(report["passes"] for report in reports),
        "music/decoding/passes_per_patch": passes / patches,
        "music/decoding/accepted_per_pass": symbols / passes,
        "music/decoding/margin": min(report["margin"] for report in reports),
    }
    assert [seen["decoding"] for seen in ranks] == [pytest.approx(decoding, rel=1e-4)] * 2
    run = trainer(alone, callbacks=[MusicEvaluation(num_samples=5, batch_size=2)])
    run.validate(fractal(last="ar"), ToyRolls(), verbose=False)
    found = {key: value.item() for key, value in run.callback_metrics.items() if "decoding" in key}
    assert found == pytest.approx(decoding, rel=1e-4)
