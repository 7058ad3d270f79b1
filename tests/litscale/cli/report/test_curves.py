"""Curves of a run are read from whatever its loggers wrote."""

from torch.utils.tensorboard import SummaryWriter

from litscale.cli.report.contents import Limits, read_contents
from litscale.cli.report.curves import POINTS, TITLE, _in_lines, _thinned, chosen


def test_attempts_are_one_curve_and_evaluations_are_none(make_run):
    curves = read_contents(make_run("demo"), "demo", Limits()).curves
    assert curves == {
        "val/nats_per_step": {19: 2.75, 39: 2.5, 49: 2.25},
        "train/loss": {9: 4.5, 19: 3.25, 39: 1.5, 49: 1.25},  # of step 39 what the later attempt logged
    }
    assert list(curves) == ["val/nats_per_step", "train/loss"]


def test_tensorboard_shows_the_same(make_run):
    run = make_run("demo", full=False)
    expected = read_contents(run, "demo", Limits()).curves
    for path in run.glob("logs/version_*/metrics.csv"):
        path.unlink()
    with SummaryWriter(str(run / "lightning_logs" / "version_0")) as writer:
        for name, curve in expected.items():
            for step, value in curve.items():
                writer.add_scalar(name, value, step)
        writer.add_scalar("epoch", 1, 3)
    assert read_contents(run, "demo", Limits()).curves == expected


def test_curves_are_thinned_to_their_last_point():
    thinned = _thinned({step: 0.5 * step for step in range(3 * POINTS + 7)})
    assert len(thinned) <= POINTS
    assert max(thinned) == 3 * POINTS + 6
    assert all(value == 0.5 * step for step, value in thinned.items())
    assert _thinned({}) == {}


def test_a_long_name_is_broken_between_its_parts():
    name = "evaluation/validate, 2 of the batches/music/histogram_overlap/pitch_class_entropy"
    lines = _in_lines(name).split("\n")
    assert lines == ["evaluation/validate, 2 of the batches/music/", "histogram_overlap/pitch_class_entropy"]
    assert all(len(line) <= TITLE for line in lines)
    assert _in_lines("val/nats_per_step") == "val/nats_per_step"
    assert _in_lines("a" * 99) == "a" * 99


def test_patterns_choose_curves():
    names = ["val/a", "val/b", "train/a", "val/a"]
    assert chosen(names, ["val/*"], 9) == (["val/a", "val/b"], 0)
    assert chosen(names, ["*"], 2) == (["val/a", "val/b"], 1)
    assert chosen(names, ["test/*"], 2) == ([], 0)
