"""Scores where the training logs."""

import csv
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import history, records

from litscale.cli.evaluate.dashboards import Dashboard, WandbRun, dashboards, send_scores, wandb_run
from litscale.cli.evaluate.folder import Evaluated

LOGGERS = "lightning.pytorch.loggers"


@pytest.fixture
def run(tmp_path):
    """A run folder and that of its evaluation."""
    (tmp_path / "run" / "evaluations" / "first").mkdir(parents=True)
    return tmp_path / "run"


def record(step, value, time="1"):
    return Evaluated(
        step=step,
        checkpoint=f"{step}.ckpt",
        checksum=None,
        weights="w",
        time=time,
        scores={"val/fid": value, "val/kid": None},
    )


def send(run, evaluated, targets, at_work=False):
    return send_scores(run / "evaluations" / "first", {each.step: each for each in evaluated}, targets, at_work)


def of(kind, **options):
    return {"class_path": f"{LOGGERS}.{kind}", "init_args": options}


def test_loggers_of_files_get_a_place_of_their_own_in_the_newest_log(run):
    for version in (2, 10):
        (run / "tensorboard" / f"version_{version}").mkdir(parents=True)
        (run / "logs" / f"version_{version}").mkdir(parents=True)
    loggers = [
        of("TensorBoardLogger", save_dir=".", name="tensorboard", version=None),
        of("CSVLogger", save_dir=".", name="logs"),
        of("CSVLogger", save_dir=".", name="never_written"),
        of("WandbLogger", save_dir="."),  # which has not begun a run
        {"class_path": "mine.Logger"},
    ]
    targets = dashboards(run, loggers)
    assert [target.key for target in targets] == ["tensorboard tensorboard/version_10", "csv logs/version_10"]
    send(run, [record(50, 31.5)], targets, at_work=True)
    send(run, [record(20, 60.5), record(50, 31.5)], targets, at_work=True)
    events = EventAccumulator(str(run / "tensorboard" / "version_10" / "evaluation_first")).Reload()
    points = [(point.step, point.value) for point in events.Scalars("evaluation/first/val/fid")]
    assert sorted(points) == [(20, 60.5), (50, 31.5)]
    assert events.Tags()["scalars"] == ["evaluation/first/val/fid"]  # what is not finite is left out
    with (run / "logs" / "version_10" / "evaluation_first.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [["step", "evaluation/first/val/fid"], ["20", "60.5"], ["50", "31.5"]]


def test_two_loggers_of_a_kind_both_get_the_scores(run):
    for name in ("one", "two"):
        (run / name / "version_0").mkdir(parents=True)
    send(
        run, [record(50, 31.5)], dashboards(run, [of("CSVLogger", save_dir=".", name=name) for name in ("one", "two")])
    )
    assert all((run / name / "version_0" / "evaluation_first.csv").exists() for name in ("one", "two"))


@pytest.mark.parametrize(
    ("folders", "options", "variable", "expected"),
    [
        ([], {}, None, None),
        (["run-20260101_000000-abc"], {}, None, ("abc", "online")),
        (["run-20260101_000000-abc"], {"offline": True}, None, ("abc", "offline")),
        (["offline-run-20260101_000000-abc"], {}, None, ("abc", "offline")),
        (["run-20260101_000000-abc"], {}, "shared", ("abc", "shared")),
        (["run-20260101_000000-abc"], {}, "dryrun", ("abc", "offline")),
        (["run-20260101_000000-abc"], {}, "disabled", None),
        (["run-20260102_000000-new-er", "run-20260101_000000-old"], {}, None, ("new-er", "online")),
        (["run-20260102_000000-newer", "run-20260101_000000-old"], {"id": "old"}, None, ("old", "online")),
        ([], {"version": "mine"}, None, ("mine", "online")),
    ],
)
def test_the_run_of_the_training_is_found(run, monkeypatch, folders, options, variable, expected):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    for name in folders:
        (run / "wandb" / name).mkdir(parents=True)
    found = wandb_run(run, options | {"save_dir": ".", "project": "litscale", "entity": "us"})
    assert (found and (found.id, found.mode)) == expected
    assert found is None or (found.project, found.entity, found.folder) == ("litscale", "us", run / "wandb")


def rows(run):
    """The points of all offline runs, and the axis that is defined for each name."""
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    found = [record for file in files for record in records(file.read_bytes())]
    axes = {each.metric.name: each.metric.step_metric for each in found if each.HasField("metric")}
    runs = [each.run for each in found if each.HasField("run")]
    # `wandb sync` appends to a run whose record says so, and would begin at step 0 again otherwise
    assert {(each.run_id, each.resume, each.git.commit) for each in runs} == {("abc", True, "")}
    return [row for file in files for row in history(file)], axes


def test_points_of_wandb_stand_at_their_own_steps_and_once(run, monkeypatch):
    (run / "wandb" / "offline-run-20260101_000000-abc").mkdir(parents=True)
    target = wandb_run(run, {"project": "litscale"})
    late = [record(50, 31.5), record(20, 60.5)]

    # killed right before and right after the points are there
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.rename", killed)
        with pytest.raises(KeyboardInterrupt):
            send(run, late, [target], at_work=True)
    with monkeypatch.context() as patched:
        patched.setattr("litscale.cli.evaluate.dashboards.write_atomically", killed_at_the_list)
        with pytest.raises(KeyboardInterrupt):
            send(run, late, [target], at_work=True)
    for _ in range(2):
        send(run, late, [target])

    points, axes = rows(run)
    own = [{name: value for name, value in row.items() if name.startswith("evaluation/")} for row in points]
    assert own == [
        {"evaluation/step": 50, "evaluation/first/val/fid": 31.5},
        {"evaluation/step": 20, "evaluation/first/val/fid": 60.5},
    ]
    assert axes == {"evaluation/step": "", "evaluation/first/val/fid": "evaluation/step"}
    sent = json.loads((run / "evaluations" / "first" / ".sent.json").read_text())
    assert sent == {"wandb abc": ["20 1", "50 1"]}


def test_points_of_tensorboard_are_there_once(run, monkeypatch):
    (run / "tensorboard" / "version_0").mkdir(parents=True)
    targets = dashboards(run, [of("TensorBoardLogger", save_dir=".", name="tensorboard")])
    late = [record(50, 31.5), record(20, 60.5)]
    for when in (killed_at_the_points, killed_at_the_list):
        with monkeypatch.context() as patched:
            patched.setattr("litscale.cli.evaluate.dashboards.write_atomically", when)
            with pytest.raises(KeyboardInterrupt):
                send(run, late, targets, at_work=True)
    for _ in range(2):
        send(run, [*late, record(70, 20.0)], targets)
    events = EventAccumulator(str(run / "tensorboard" / "version_0" / "evaluation_first")).Reload()
    points = [(point.step, point.value) for point in events.Scalars("evaluation/first/val/fid")]
    assert sorted(points) == [(20, 60.5), (50, 31.5), (70, 20.0)]


def killed(*_):
    raise KeyboardInterrupt


def killed_at_the_points(path, data):
    if "tfevents" in path.name:
        raise KeyboardInterrupt
    path.write_bytes(data)


def killed_at_the_list(path, data):
    if path.name == ".sent.json":
        raise KeyboardInterrupt
    path.write_bytes(data)


class Noting(Dashboard):
    """Notes what it is sent; it takes nothing while the training is at work, and fails while it is broken."""

    key, live = "noting", False

    def __init__(self):
        self.taken, self.broken = [], False

    def sent(self):
        return set()

    def send(self, name, new, every):
        if self.broken:
            raise ConnectionError("no network")
        self.taken.append((name, [each.step for each in new], [each.step for each in every]))


def test_a_dashboard_with_one_writer_waits_for_the_end_of_the_training(run):
    target = Noting()
    evaluated = [record(20, 1.0), record(50, 2.0)]
    assert send(run, evaluated, [target], at_work=True)[0].startswith(
        "noting: scores are sent when the training has ended"
    )
    assert target.taken == []
    assert send(run, evaluated, [target]) == []
    assert send(run, [record(20, 1.0), record(50, 3.0, time="2")], [target]) == []  # evaluated again
    assert target.taken == [("first", [20, 50], [20, 50]), ("first", [50], [20, 50])]


def test_a_server_that_is_not_reached_ends_nothing_and_is_tried_again(run):
    target, other = Noting(), Noting()
    other.key, target.broken = "other", True
    lines = send(run, [record(20, 1.0)], [target, other])
    assert lines == ["noting: scores could not be sent (no network); this is tried again"]
    assert other.taken == [("first", [20], [20])]
    target.broken = False
    assert send(run, [record(20, 1.0)], [target, other]) == []
    assert len(target.taken) == len(other.taken) == 1


@pytest.mark.parametrize(("mode", "live"), [("online", False), ("offline", True), ("shared", True)])
def test_wandb_has_one_writer_online(tmp_path, mode, live):
    assert WandbRun("abc", None, None, tmp_path, mode).live is live
