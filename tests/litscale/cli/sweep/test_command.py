"""A sweep runs its trials, survives their failures and its own, and comes to the same table."""

import os
import signal
import time
from pathlib import Path

import pytest
from cli_runs import forked, status_of
from PIL import Image

from litscale.cli.sweep import processes
from litscale.cli.sweep.command import main

TPE = {"name": "tpe", "n_startup_trials": 2}


def table(folder="sweep"):
    """The lines of the table, as text."""
    return (Path(folder) / "sweep.csv").read_text().splitlines()


def starts(number, folder="sweep"):
    """The steps at which processes of a trial began."""
    path = Path(folder) / "trials" / f"{number:04d}" / "starts.txt"
    return path.read_text().split() if path.exists() else []


def test_trials_are_run_folders_and_the_best_is_named(sweep, capsys):
    main([sweep(jobs=2)])
    rows = [line.split(",") for line in table()[1:]]
    assert table()[0] == "trial,val/loss,model.lr,model.width,state"
    assert sorted(row[0] for row in rows) == ["0000", "0001", "0002", "0003"]
    for trial, score, lr, width, state in rows:
        assert state == "finished"
        # the stub's function after its fourth step
        assert float(score) == pytest.approx((float(lr) - 0.3) ** 2 + float(width) + 0.25)
        log = Path(f"sweep/trials/{trial}/log.txt").read_text()
        assert "of group sweep as sweep-" in log
        assert log.strip().endswith(f"-{trial}")
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    assert Image.open("sweep/sweep.png").size[0] > 500
    out = capsys.readouterr().out
    assert f"The best: trial {rows[0][0]} with val/loss" in out
    assert f"Next: litscale test --config sweep/trials/{rows[0][0]}/config.yaml --ckpt_path best" in out
    # the same command shows the same table, and trains nothing
    before = table()
    main([sweep(jobs=2)])
    assert table() == before
    assert [starts(number) for number in range(4)] == [["0"]] * 4


@pytest.mark.slow
def test_more_trials_go_on_with_a_sweep_and_the_higher_score_may_be_better(sweep):
    main([sweep(mode="max", trials=2, folder="long")])
    main([sweep(mode="max", trials=1)])
    main([sweep(mode="max", trials=2)])
    assert table() == table("long")
    scores = [float(line.split(",")[1]) for line in table()[1:]]
    assert scores == sorted(scores, reverse=True)
    # the best validation counts: the first, as the stub's score falls
    lr, width = map(float, table()[1].split(",")[2:4])
    assert scores[0] == pytest.approx((lr - 0.3) ** 2 + width + 1)


def test_a_grid_has_every_point_once(sweep):
    space = {"model.lr": {"low": 0.1, "high": 0.3, "step": 0.2}, "model.width": {"values": [3, 1]}}
    main([sweep(sampler="grid", space=space, trials=None, jobs=3)])
    points = sorted(tuple(map(float, line.split(",")[2:4])) for line in table()[1:])
    assert points == [pytest.approx(point) for point in [(0.1, 1), (0.1, 3), (0.3, 1), (0.3, 3)]]


def test_a_trial_that_fails_does_not_end_the_sweep(sweep):
    main([sweep(sampler="grid", space={"model.lr": [0.3], "model.width": [13, 1]}, trials=None)])
    best, failed = table()[1:]
    assert best.startswith("0001,1.25,0.3,1.0,finished")
    assert failed.startswith("0000,,0.3,13.0,failed,ValueError: a width of 13 brings bad luck (exit status 1)")


def test_a_pruned_trial_ends_early(sweep):
    space = {"model.lr": [0.3], "model.width": [1, 2]}
    main([sweep(sampler="grid", space=space, trials=None, pruner={"name": "median", "n_startup_trials": 1})])
    assert [line.split(",")[-1] for line in table()[1:]] == ["finished", "pruned at step 1"]
    assert starts(1) == ["0"]


@pytest.mark.parametrize(
    ("sampler", "number", "linux"),
    [
        (TPE, signal.SIGKILL, True),
        pytest.param("random", signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param("random", signal.SIGKILL, False, marks=pytest.mark.slow),
        pytest.param("random", signal.SIGKILL, True, marks=pytest.mark.slow),
        pytest.param(TPE, signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param(TPE, signal.SIGINT, True, marks=pytest.mark.slow),
    ],
)
def test_a_killed_sweep_goes_on_to_the_same_table(sweep, sampler, number, linux, monkeypatch):
    if not linux:  # no system call tells trials that the sweep is gone
        monkeypatch.setattr(processes, "_LIBC", None)
    settings = {"sampler": sampler, "trials": 6, "jobs": 2}
    main([sweep("whole.yaml", folder="whole", **settings)])
    process = forked("sweep", sweep(**settings))
    while not Path("sweep/trials/0002/last.txt").exists():
        time.sleep(0.01)
    os.kill(process, number)
    assert status_of(process) == (-number if number == signal.SIGKILL else 128 + number)
    while any(b"stub_litscale.py" in line for line in command_lines()):
        time.sleep(0.05)  # trials that are orphans end by themselves
    assert not starts(5)
    main([sweep(**settings)])
    assert table() == table("whole")
    # some trial went on from its own step
    again = [starts(trial) for trial in range(6)]
    assert any(len(each) == 2 and int(each[1]) > 0 for each in again)


def command_lines():
    """Those of this process's group of tests: all processes whose working directory is this one."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cwd").readlink() == Path.cwd():
                yield (folder / "cmdline").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue


def test_a_metric_that_is_never_logged_ends_the_sweep(sweep, capsys):
    with pytest.raises(SystemExit):
        main([sweep(space={"model.lr": [0.3], "model.width": [14]}, sampler="grid")])
    assert "metric: trials log nothing as val/loss; there are val/other" in capsys.readouterr().err


def test_two_sweeps_do_not_share_a_folder_nor_one_sweep_two_settings(sweep, capsys):
    from filelock import FileLock

    main([sweep(trials=1)])
    with FileLock("sweep/.lock"), pytest.raises(SystemExit):
        main([sweep(trials=1)])
    assert "in use by another litscale sweep" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([sweep(seed=1)])
    assert "was started with other settings (seed): give another folder" in capsys.readouterr().err


def test_an_option_that_the_config_does_not_know_is_refused_before_anything_starts(sweep, capsys):
    with pytest.raises(SystemExit):
        main([sweep(space={"model.lr": [0.3], "modle.width": [1]}, sampler="grid")])
    assert "the first trial's options are refused: Unrecognized arguments: ['modle.width']" in capsys.readouterr().err
    assert not Path("sweep").exists()
    main([sweep(trials=1)])  # and the folder is not taken
