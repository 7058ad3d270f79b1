"""What an evaluator does next."""

import csv

import pytest

from litscale.cli.evaluate.evaluator import End, Evaluator, Task, Wait, Watch
from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.evaluate.selection import Selection
from litscale.storage.checkpoints import read_checkpoint

ONCE = Watch()
WATCH = Watch(on=True, patience=60.0, poll=0.5)


@pytest.fixture
def evaluator(tmp_path, folder):
    """Make an evaluator of the run; each has its own view of the folder, as processes have."""

    def make(watch=ONCE, **selected):
        own = EvaluationFolder(tmp_path / "run", "first")
        return Evaluator(tmp_path / "run", own, Selection(**selected), watch)

    return make


def steps(tmp_path):
    with (tmp_path / "run" / "evaluations" / "first" / "scores.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def work(evaluator):
    """Evaluate until there is nothing to do; return the steps, and what it says then."""
    done = []
    while isinstance(task := evaluator.next(), Task):
        assert read_checkpoint(task.snapshot)["global_step"] == task.step
        evaluator.keep({"val/fid": 100.0 - task.step})
        done.append(task.step)
    return done, task


def test_all_steps_are_done_once_in_order(tmp_path, evaluator, save):
    for step in (20, 10, 100):
        save(f"step_{step}.ckpt", step)
    save("last.ckpt", 100)
    done, end = work(evaluator())
    assert (done, end) == ([10, 20, 100], End(f"3 steps are scored in {tmp_path / 'run' / 'evaluations' / 'first'}"))
    assert work(evaluator())[0] == []
    assert steps(tmp_path) == [10, 20, 100]
    for path in (tmp_path / "run" / "checkpoints").iterdir():  # all is scored, also where no checkpoint is left
        path.unlink()
    assert work(evaluator()) == ([], end)


def test_two_evaluators_share_the_work(tmp_path, evaluator, save):
    for step in (10, 20):
        save(f"step_{step}.ckpt", step)
    one, two = evaluator(), evaluator()
    assert (one.next().step, two.next().step) == (10, 20)
    third = evaluator().next()
    assert third.reason.endswith("; others are at 10, 20")
    two.keep({"val/fid": 2.0})
    one.release()  # as a kill does
    assert two.next().step == 10
    two.keep({"val/fid": 1.0})
    assert isinstance(one.next(), End)
    assert steps(tmp_path) == [10, 20]


def test_a_checkpoint_that_is_pruned_or_replaced_is_skipped_with_a_line(tmp_path, evaluator, save, capsys, monkeypatch):
    save("step_10.ckpt", 10)
    save("step_20.ckpt", 20)
    save("last.ckpt", 30)
    take = EvaluationFolder.take_snapshot

    def late(self, candidate):
        if candidate.step == 10:
            candidate.path.unlink()
        elif candidate.step == 30:
            save("last.ckpt", 40)
        return take(self, candidate)

    monkeypatch.setattr(EvaluationFolder, "take_snapshot", late)
    watcher = evaluator(WATCH)
    assert work(watcher) == ([20], Wait(0.0))  # to look again at once
    assert work(watcher) == ([40], Wait(0.5))
    assert "step_10.ckpt (step 10) was removed meanwhile: skipped" in capsys.readouterr().out
    assert not (tmp_path / "run" / "evaluations" / "first" / "step_30").exists()


def test_what_a_killed_evaluator_was_at_is_not_lost(tmp_path, evaluator, save):
    last = save("last.ckpt", 10)
    killed = evaluator(last=True)
    assert killed.next().step == 10
    killed.release()
    save("last.ckpt", 20)
    with pytest.raises(FileNotFoundError):
        evaluator(best=True).next()  # it wants others
    done, _ = work(evaluator(last=True))
    assert done == [10, 20]
    assert not list((tmp_path / "run" / "evaluations").glob("**/*.ckpt"))
    record = EvaluationFolder(tmp_path / "run", "first").evaluated()[10]
    assert record.checkpoint == str(last.resolve())


def test_a_watch_goes_on_until_the_run_has_ended(evaluator, save, status):
    watcher = evaluator(WATCH)
    status("running")
    assert watcher.next() == Wait(0.5)
    save("step_10.ckpt", 10)
    assert work(watcher) == ([10], Wait(0.5))
    status("interrupted")  # it may be resumed
    assert watcher.next() == Wait(0.5)
    save("step_20.ckpt", 20)
    status("finished")
    done, end = work(watcher)
    assert (done, type(end)) == ([20], End)


@pytest.mark.parametrize("end", ["interrupted", None])
def test_patience_counts_from_the_last_sign_of_life(evaluator, save, status, monkeypatch, end):
    now = 1000.0
    monkeypatch.setattr("litscale.cli.evaluate.evaluator.time.monotonic", lambda: now)
    if end:
        status("running")
    save("step_10.ckpt", 10)
    watcher = evaluator(WATCH)
    assert work(watcher) == ([10], Wait(0.5))
    now += 3599
    assert watcher.next() == Wait(0.5)
    if end:
        now += 3600
        assert watcher.next() == Wait(0.5)  # it is at work
        status(end)
        now += 3599
        assert watcher.next() == Wait(0.5)
    now += 1
    assert watcher.next().reason.endswith("nothing new for 60 minutes (--patience)")


def test_an_empty_selection_is_an_error_now_or_at_the_end(evaluator, save, status):
    save("step_10.ckpt", 10)
    with pytest.raises(FileNotFoundError, match=r"that --best selects; there are step_10.ckpt"):
        evaluator(best=True).next()
    watcher = evaluator(WATCH, best=True)
    status("running")
    assert isinstance(watcher.next(), Wait)
    status("failed")
    with pytest.raises(FileNotFoundError, match=r"that --best selects"):
        watcher.next()
