"""What is saved when, what never is, and that a run goes on from each save as if it had not been interrupted."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from run_toys import BATCHES, OPTIMIZATION, Keeper, Model, assert_same, fit, last

from callbacks import Checkpoints
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.files import atomic_file

STEPS = 2 * BATCHES + 3
# Epochs of nine batches, with a validation at each end, within, or every second epoch; whole and accumulated steps.
COURSES = {
    "each epoch": {},
    "within": {"val_check_interval": 4},
    "second epoch": {"check_val_every_n_epoch": 2},
    "accumulated": {"accumulate_grad_batches": 2, "max_steps": 13},
    "by epochs": {"max_steps": -1, "max_epochs": 3},
}


SLOW = pytest.mark.slow


class BreakError(Exception):
    """What goes wrong in these tests."""


def breaking(at):
    """Raise at a step, once."""
    left = [at]

    def act(step):
        if left and step == left[0]:
            left.pop()
            raise BreakError

    return act


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The last checkpoint of an uninterrupted run, by its course."""
    ends = {}

    def of(course="each epoch"):
        if course not in ends:
            folder = tmp_path_factory.mktemp("whole")
            fit(folder, **COURSES[course])
            ends[course] = last(folder)
        return ends[course]

    return of


@pytest.mark.parametrize(
    "course", [each if each in ("each epoch", "accumulated") else pytest.param(each, marks=SLOW) for each in COURSES]
)
def test_a_run_goes_on_from_each_of_its_saves(tmp_path, whole, course):
    keeper = Keeper(tmp_path / "kept")
    fit(tmp_path / "run", callbacks=[keeper], policy=Checkpoints("val/score", minutes=0), **COURSES[course])
    assert len(keeper.kept) >= 13
    assert_same(last(tmp_path / "run"), whole(course))
    for number, kept in enumerate(keeper.kept):
        fit(tmp_path / f"resumed_{number}", ckpt_path=kept, **COURSES[course])
        folder = tmp_path / f"resumed_{number}"
        if (folder / "checkpoints" / "last.ckpt").exists():  # a run that was at its end writes nothing
            assert_same(last(folder), whole(course))
        else:
            assert_same(torch.load(kept, weights_only=True), whole(course))


@pytest.mark.parametrize("stop", [5, BATCHES, 14, 2 * BATCHES])
def test_an_extended_run_sees_the_rest_of_the_epoch(tmp_path, whole, stop):
    fit(tmp_path, max_steps=stop)
    assert last(tmp_path)["global_step"] == stop
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())


def test_a_run_extended_by_epochs(tmp_path, whole):
    fit(tmp_path, max_steps=-1, max_epochs=2)
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", **COURSES["by epochs"])
    assert_same(last(tmp_path), whole("by epochs"))


@pytest.mark.parametrize("step", [0, 1, 8, 9, 12])
@pytest.mark.parametrize("accumulated", [False, True])
def test_an_exception_in_a_step_saves_the_step_before(tmp_path, whole, step, accumulated):
    course = "accumulated" if accumulated else "each epoch"
    with pytest.raises(BreakError):
        fit(tmp_path, Model({"forward": breaking(step)}), **COURSES[course])
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert path.exists() == (step > 0)
    if step:
        assert last(tmp_path)["global_step"] == step
    fit(tmp_path, ckpt_path=path if step else None, **COURSES[course])
    assert_same(last(tmp_path), whole(course))


@pytest.mark.parametrize("place", ["validation", "batch end"])
def test_an_exception_between_steps_loses_nothing(tmp_path, whole, place):
    with pytest.raises(BreakError):
        fit(tmp_path, Model({place: breaking(BATCHES)}))
    assert last(tmp_path)["global_step"] == BATCHES
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())


def test_an_exception_within_the_optimiser_s_step_leaves_the_save_before(tmp_path, whole, monkeypatch):
    step = torch.optim.AdamW.step
    calls = []

    def torn(self, *args, **kwargs):
        result = step(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 13:
            raise BreakError
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", torn)
    with pytest.raises(BreakError):
        fit(tmp_path)
    assert last(tmp_path)["global_step"] == BATCHES
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, None)], ids=str
)
@pytest.mark.parametrize("step", [0, 12])
def test_signals_save_the_step_under_way(tmp_path, whole, number, status, step):
    keeper = Keeper(tmp_path / "kept")

    def kill(now):
        if now == step:
            os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    if status is None:
        fit(tmp_path, Model({"forward": kill}), callbacks=[keeper])
        assert f"step_{step + 1}.ckpt" in "".join(path.name for path in keeper.kept)
        assert_same(last(tmp_path), whole())
    else:
        with pytest.raises(SystemExit) as stop:
            fit(tmp_path, Model({"forward": kill}))
        assert stop.value.code == status
        assert last(tmp_path)["global_step"] == step + 1
        fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
        assert_same(last(tmp_path), whole())
    assert before == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]


def test_a_second_signal_does_not_wait(tmp_path, whole):
    def kill(step):
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the second signal was put off")

    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, Model({"forward": kill}))
    assert stop.value.code == 143
    assert last(tmp_path)["global_step"] == 12
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())


def test_a_validation_ends_at_once(tmp_path, whole):
    def kill(step):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the validation went on")

    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, Model({"validation": kill}))
    assert stop.value.code == 143
    assert last(tmp_path)["global_step"] == BATCHES
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())


class Interrupting:
    """A file to write; a signal comes at its third write, in the middle of an entry."""

    def __init__(self, file):
        self.file, self.flush, self.writes = file, file.flush, 0

    def write(self, data):
        self.writes += 1
        if self.writes == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.file.write(data)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_signal_in_a_save_of_a_validation_is_not_hidden_by_torch_s_error(tmp_path, whole, monkeypatch, name):
    @contextmanager
    def interrupted(path):
        with atomic_file(path) as file:
            if path.name == name:
                monkeypatch.undo()
            yield Interrupting(file) if path.name == name else file

    monkeypatch.setattr("callbacks.checkpointing.files.atomic_file", interrupted)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path)
    assert stop.value.code == 143
    assert last(tmp_path)["global_step"] == BATCHES
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="shows what is mapped by Linux's /proc")
def test_a_resumed_run_does_not_need_the_file_that_it_began_with(tmp_path):
    fit(tmp_path, max_steps=BATCHES)
    mapped = []
    at = {"forward": lambda step: mapped.append(str(tmp_path / "checkpoints") in Path("/proc/self/maps").read_text())}
    fit(tmp_path, Model(at), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert mapped
    assert not any(mapped)


def test_a_slurm_job_is_requeued_after_the_step(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name, value in {"NTASKS": "1", "JOB_NAME": "training", "JOB_ID": "71", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = tmp_path / "run"

    def requeue(step):
        if step == 12:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not calls.exists()

    fit(run, Model({"forward": requeue}))
    assert calls.read_text() == "requeue 71\n"
    assert read_checkpoint(run / "hpc_ckpt_1.ckpt")["global_step"] == 13
    assert last(run)["global_step"] == STEPS


def recorded(path):
    """What a checkpoint says of its own score."""
    return torch.load(path, weights_only=True)["callbacks"]["Checkpoints"]["score"]


@pytest.mark.parametrize(
    ("mode", "best", "step"), [("min", 1.5, 2 * BATCHES), ("max", 4.0, 3 * BATCHES)], ids=["min", "max"]
)
def test_best_is_the_best_score_only(tmp_path, mode, best, step):
    scores = [3.0, 1.5, 4.0, 2.0]
    policy = Checkpoints("val/score", mode)
    fit(tmp_path, Model(scores=scores), policy=policy, max_steps=4 * BATCHES)
    path = tmp_path / "checkpoints" / "best.ckpt"
    assert recorded(path) == best
    assert torch.load(path, weights_only=True)["global_step"] == step
    assert policy.best_model_path == str(path)
    assert recorded(tmp_path / "checkpoints" / "last.ckpt") is None  # it was written before its validation


@pytest.mark.parametrize("epochs", [3, 2])
@pytest.mark.parametrize("harm", ["exception", "signal", "late signal"])
def test_a_validation_that_was_interrupted_is_run_again(tmp_path, harm, epochs):
    """The scores of an uninterrupted run are 3, 1 and 2; the second validation, maybe the last, is interrupted."""

    def act(step):
        if step == 2 * BATCHES:
            if harm == "exception":
                raise BreakError
            os.kill(os.getpid(), signal.SIGTERM)

    def late(step):  # in the step before the validation
        if step == 2 * BATCHES - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    place = {"forward": late} if harm == "late signal" else {"validation": act}
    with pytest.raises((BreakError, SystemExit)):
        fit(tmp_path, Model(place, scores=[3.0, 1.0, 2.0]), max_steps=epochs * BATCHES)
    fit(
        tmp_path, Model(scores=[1.0, 2.0]), ckpt_path=tmp_path / "checkpoints" / "last.ckpt", max_steps=epochs * BATCHES
    )
    path = tmp_path / "checkpoints" / "best.ckpt"
    assert recorded(path) == 1.0
    assert read_checkpoint(path)["global_step"] == 2 * BATCHES
    assert last(tmp_path)["global_step"] == epochs * BATCHES


@pytest.mark.parametrize("asked", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 3}])
def test_a_run_that_is_resumed_without_its_last_validation_takes_no_step_more(tmp_path, asked):
    with pytest.raises(BreakError):
        fit(tmp_path, Model({"validation": breaking(2 * BATCHES)}), max_steps=2 * BATCHES)
    resumed = fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", max_steps=2 * BATCHES, **asked)
    assert (resumed.global_step, resumed.max_steps) == (2 * BATCHES, 2 * BATCHES)
    assert last(tmp_path)["global_step"] == 2 * BATCHES


@pytest.mark.parametrize("at", ["training", "validation"])
@pytest.mark.parametrize("on_epoch_end", [None, False])
def test_early_stopping_ends_where_it_would_have_ended(tmp_path, at, on_epoch_end):
    """With a patience of one the uninterrupted run ends after its third epoch, of scores 3, 1 and 2."""

    def stopping():
        return EarlyStopping("val/score", patience=1, check_on_train_epoch_end=on_epoch_end)

    def act(step):
        if step == (2 * BATCHES if at == "validation" else 2 * BATCHES + 1):
            raise BreakError

    place = {"forward" if at == "training" else "validation": act}
    options = {"max_steps": 9 * BATCHES}
    with pytest.raises(BreakError):
        fit(tmp_path, Model(place, scores=[3.0, 1.0, 2.0]), callbacks=[stopping()], **options)
    left = [2.0, 4.0] if at == "training" else [1.0, 2.0, 4.0]
    path = tmp_path / "checkpoints" / "last.ckpt"
    fit(tmp_path, Model(scores=left), ckpt_path=path, callbacks=[stopping()], **options)
    assert last(tmp_path)["global_step"] == 3 * BATCHES


@pytest.mark.parametrize("harm", ["exception", "signal"])
def test_an_interruption_leaves_best_alone(tmp_path, harm):
    def act(step):
        if step == 13:
            if harm == "exception":
                raise BreakError
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises((BreakError, SystemExit)):
        fit(tmp_path, Model({"forward": act}, scores=[3.0]))
    path = tmp_path / "checkpoints" / "best.ckpt"
    before = path.read_bytes()
    assert recorded(path) == 3.0
    # a resumed run knows the score, although its own file was written after the validation
    fit(tmp_path, Model(scores=[5.0, 4.0]), ckpt_path=tmp_path / "checkpoints" / "last.ckpt", max_steps=3 * BATCHES)
    assert path.read_bytes() == before


def test_best_validates_at_its_score(tmp_path):
    trainer = fit(tmp_path)
    path = tmp_path / "checkpoints" / "best.ckpt"
    (scores,) = trainer.validate(Model(), dataloaders=trainer.val_dataloaders, ckpt_path=path, verbose=False)
    assert scores["val/score"] == recorded(path)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_stops_before_its_step(tmp_path, whole, clip, value):
    model = Model({"gradient": lambda step: value if step == 12 else 0.25})
    with pytest.raises(
        FloatingPointError, match=r"gradient of network\.2\.bias is not finite at step 12, so"
    ) as caught:
        fit(tmp_path, model, gradient_clip_val=clip)
    assert "set or lower trainer.gradient_clip_val" in str(caught.value)  # it may be set already
    assert last(tmp_path)["global_step"] == 12
    fixed = Model({"gradient": lambda step: 0.25})
    fit(tmp_path, fixed, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", gradient_clip_val=clip)
    fit(tmp_path / "whole", Model({"gradient": lambda step: 0.25}), gradient_clip_val=clip)
    assert_same(last(tmp_path), last(tmp_path / "whole"))


@pytest.mark.parametrize("minutes", [0, 10])
def test_one_step_at_a_huge_rate_ruins_no_checkpoint(tmp_path, whole, minutes):
    class Huge(Model):
        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            if self.global_step == 12:
                for group in optimizer.param_groups:
                    group["lr"] = 1e30

    with pytest.raises(FloatingPointError):
        fit(tmp_path, Huge(), policy=Checkpoints("val/score", minutes=minutes))
    assert last(tmp_path)["global_step"] == (12 if minutes == 0 else BATCHES)
    fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert_same(last(tmp_path), whole())


@pytest.mark.parametrize("where", ["weights", "moments", "average"])
def test_what_is_not_finite_is_not_saved(tmp_path, where):
    class Harm(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 12:
                average = trainer.callbacks[0]._average_model.module
                moments = trainer.optimizers[0].state[pl_module.network[0].weight]["exp_avg"]
                harmed = {
                    "weights": pl_module.network[0].weight,
                    "moments": moments,
                    "average": average.network[0].weight,
                }
                harmed[where].data[2, 1] = float("inf")

    names = {
        "weights": r"current_model_state\.network\.0\.weight",
        "moments": r"optimizer_states\.0\.state\.0\.exp_avg",
        "average": r"state_dict\.network\.0\.weight",
    }
    with pytest.raises(FloatingPointError, match=rf"at step 12 the values of .*{names[where]} are not finite"):
        fit(tmp_path, callbacks=[Harm()], policy=Checkpoints("val/score", every_n_steps=12))
    assert last(tmp_path)["global_step"] == BATCHES


def test_a_score_that_is_not_finite_is_not_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="val/score is nan at step 18, so the weights are not saved"):
        fit(tmp_path, Model(scores=[3.0, float("nan")]))
    assert last(tmp_path)["global_step"] == BATCHES
    assert recorded(tmp_path / "checkpoints" / "best.ckpt") == 3.0


def test_without_a_monitor_every_score_of_a_validation_must_be_finite(tmp_path):
    with pytest.raises(FloatingPointError, match="val/score is nan at step 18, so the weights are not saved"):
        fit(tmp_path, Model(scores=[3.0, float("nan")]), policy=Checkpoints())
    assert last(tmp_path)["global_step"] == BATCHES


def test_another_callback_that_loads_a_state_of_its_own_is_noticed(tmp_path):
    class Loader(Callback):
        def on_fit_start(self, trainer, pl_module):
            trainer._checkpoint_connector._loaded_checkpoint = {}

    fit(tmp_path, max_steps=4)
    with pytest.raises(MisconfigurationException, match="resumes step 4, but begins at step 0: one of its callbacks"):
        fit(tmp_path, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", callbacks=[Loader()])
    assert last(tmp_path)["global_step"] == 4


def test_a_monitor_that_nothing_logs(tmp_path):
    with pytest.raises(
        MisconfigurationException,
        match=r"checkpoints\.monitor: nothing is logged as val/scroe; there are train/loss, val/",
    ):
        fit(tmp_path, policy=Checkpoints("val/scroe"))


@pytest.mark.parametrize(("options", "message"), [({"mode": "least"}, "mode must be min or max, not 'least'")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(**options)


def test_a_damaged_checkpoint_is_not_resumed(tmp_path):
    fit(tmp_path, max_steps=4)
    path = tmp_path / "checkpoints" / "last.ckpt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=str(path)):
        fit(tmp_path, ckpt_path=path)


def test_files_are_only_those_promised(tmp_path):
    fit(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == STEPS
    assert OPTIMIZATION.lr == 0.05
