"""What is wrong with a sweep's file is said in one line."""

from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from optuna.trial import create_trial

from litscale.cli.sweep.command import main
from litscale.cli.sweep.spec import SweepError, read_sweep
from litscale.cli.sweep.table import picture


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplr": "tpe"}, "sweep.yaml: unknown setting samplr; did you mean sampler?"),
        ({"space": {}}, "sweep.yaml: space is missing or empty"),
        ({"metric": None}, "sweep.yaml: metric is missing or empty"),
        ({"space": [1]}, "space must give for each option a list of values or a range"),
        ({"space": {"model.lr": []}}, "space: model.lr: no values"),
        ({"space": {"model.lr": [1, 2, 1]}}, "space: model.lr: the same value twice: 1"),
        ({"space": {"model.lr": {"low": 1}}}, "space: model.lr: give a list of values, or a range of low, high, log"),
        ({"space": {"model.lr": {"low": 2, "high": 1}}}, "space: model.lr: low must be below high"),
        ({"space": {"model.lr": {"low": "1e-4", "high": 1}}}, "low is the text '1e-4'; YAML reads 1.0e-4 as a number"),
        ({"space": {"model.lr": {"low": 1, "high": 2, "lgo": True}}}, "space: model.lr: give a list of values, or a"),
        ({"space": {"m.a": [1], "m.init_args.a": [2]}}, "space: m.a and m.init_args.a are the same option"),
        ({"sampler": "tpo"}, "sampler must be one of grid, random, tpe"),
        ({"sampler": {"name": "tpe", "x": 1}}, "sampler or pruner: tpe: "),
        ({"pruner": "mediam"}, "sampler or pruner: there is no mediam; there are"),
        ({"sampler": "grid"}, "space: model.lr: a grid needs values, or a range with a step"),
        ({"sampler": {"name": "random", "x": 1}}, "(grid and random have no options)"),
        ({"sampler": ["tpe"]}, "sampler must be a name, or {name: ..., options}, not ['tpe']"),
        ({"pruner": {"n_warmup_steps": 1}}, "pruner must be a name, or {name: ..., options}"),
        ({"slurm": "gpu"}, "slurm must give options, such as {partition: gpu}, not 'gpu'"),
        ({"trials": None}, "give the number of trials"),
        ({"trials": 0}, "trials must be a whole number, at least 1, not 0"),
        ({"mode": "down"}, "mode must be min or max, not 'down'"),
        ({"folder": 5}, "folder must be text, not 5"),
        ({"metric": ["val/loss"]}, "metric must be text, not ['val/loss']"),
        ({"space": {1: [1, 2]}}, "space must give for each option a list of values or a range"),
        ({"space": {"ckpt_path": ["a"]}}, "space: ckpt_path is set by the sweep itself"),
        ({"space": {"model.lr": [date(2020, 1, 1)]}}, "space: model.lr: Object of type date is not JSON serializable"),
        ({"space": {"model.lr": {"low": True, "high": 2}}}, "space: model.lr: low must be a number, not True"),
        (
            {"sampler": "grid", "space": {"model.lr": {"low": 1, "high": 10**15, "step": 1}}},
            "space: model.lr: the grid has more than 100000 points; give another sampler",
        ),
        ({"config": "digit/fractal_ar.yaml"}, "litscale has no config of this name; similar ones: digits/fractal_ar"),
    ],
)
def test_bad_settings_are_named(sweep, changes, message):
    with pytest.raises(SweepError) as error:
        read_sweep(Path(sweep(**changes)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_that_is_null(sweep):
    path = Path(sweep())
    path.write_text(path.read_text() + "jobs: null\n")
    with pytest.raises(SweepError, match="jobs must be a whole number, at least 1, not None"):
        read_sweep(path)


def test_the_command_says_it_in_one_error(sweep, capsys):
    with pytest.raises(SystemExit) as stop:
        main([sweep(jbos=2)])
    assert stop.value.code == 2
    assert "litscale sweep: error: sweep.yaml: unknown setting jbos; did you mean jobs?" in capsys.readouterr().err
    assert not Path("sweep").exists()


def test_damaged_files_and_folders_that_are_files_are_one_line(sweep, capsys):
    Path("damaged.yaml").write_text("config: [")
    for path, message in (
        ("damaged.yaml", "damaged.yaml: no YAML file"),
        (sweep(folder="damaged.yaml"), "is a file: giv"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([path])
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_options_are_words_of_the_command_line(sweep):
    space = {"a.b": [[1, 2]], "a.c": [True], "a.d": ["word"], "a.e": [None], "a.f": [0.5]}
    spec = read_sweep(Path(sweep(space=space, sampler="grid", trials=None)))
    words = spec.words(0, spec.points[0])
    assert {"--a.b=[1, 2]", "--a.c=true", "--a.d=word", "--a.e=null", "--a.f=0.5"} <= set(words)
    assert words[:3] == ["fit", "--config", "base.yaml"]
    assert words[-2:] == ["--trainer.default_root_dir=sweep/trials/0000", "--ckpt_path=auto"]


@pytest.mark.parametrize(
    ("space", "panels"),
    [
        ({"model.lr": {"low": 0.0, "high": 1.0}, "trainer.max_steps": [9]}, ["lr"]),
        ({"trainer.max_steps": [9]}, ["max_steps"]),  # something has to be drawn
    ],
)
def test_the_picture_leaves_out_what_does_not_vary(sweep, space, panels):
    drawn = picture(read_sweep(Path(sweep(space=space))), []).axes
    assert [panel.get_xlabel() for panel in drawn if panel.get_visible()] == panels


def labels_that_overlap(spec, lrs):
    """Pairs of neighbouring labels on the axis of a learning rate that touch, of a picture with these trials."""
    trials = [
        create_trial(
            params={"model.lr": lr}, distributions=spec.distributions, value=1.0 + lr, intermediate_values={1: 1.0 + lr}
        )
        for lr in lrs
    ]
    figure = picture(spec, trials)
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[0].xaxis
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()]
    boxes = sorted((box for box in boxes if box.width and 0 <= box.x0 <= figure.bbox.width), key=lambda box: box.x0)
    assert boxes
    return [(one, other) for one, other in pairwise(boxes) if one.x1 > other.x0]


@pytest.mark.parametrize("lrs", [(1.4e-4, 4.3e-3), (2e-4, 7e-4), (1e-5, 1e-1), (1.1e-4, 9.8e-3)])
def test_labels_of_a_logarithmic_axis_do_not_overlap(sweep, lrs):
    spec = read_sweep(Path(sweep(space={"model.lr": {"low": 1.0e-6, "high": 1.0, "log": True}})))
    assert labels_that_overlap(spec, lrs) == []


def test_a_point_may_say_which_callbacks_there_are(sweep):
    spec = read_sweep(Path(sweep(space={"trainer.callbacks": [[], ["a.B"]]}, sampler="grid", trials=None)))
    words = spec.words(1, spec.points[1])
    assert words.index('--trainer.callbacks=["a.B"]') < words.index("--trainer.callbacks+=callbacks.SweepTrial")
