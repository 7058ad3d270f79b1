"""What an evaluation has scored, and how evaluators share it."""

import json

import pytest

from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.evaluate.selection import CheckpointReader


def read(path):
    return CheckpointReader().read(path)


def scored(folder, candidate, **scores):
    folder.keep(candidate, folder.take_snapshot(candidate), scores)


def test_settings_are_those_of_all_evaluators(tmp_path):
    settings = {"stage": "test", "model": {"init_args": {"passes": 1, "widths": [16, 24]}}, "callbacks": None}
    folder = EvaluationFolder(tmp_path / "run", "first")
    folder.claim(settings)
    EvaluationFolder(tmp_path / "run", "first").claim(
        settings | {"model": {"init_args": {"widths": (16, 24), "passes": 1}}}
    )
    other = {"stage": "test", "model": {"init_args": {"passes": 4, "widths": [16, 32]}}, "callbacks": []}
    with pytest.raises(
        ValueError, match=r"belongs to an evaluation with other settings: (.*)\. Give this one another --n"
    ) as raised:
        EvaluationFolder(tmp_path / "run", "first").claim(other)
    for difference in ("passes was 1 and is 4", "widths.1 was 24 and is 32", "callbacks was null and is []"):
        assert difference in str(raised.value)
    longer = settings | {"model": {"init_args": {"passes": 1, "widths": [16, 24, 32]}}}
    with pytest.raises(ValueError, match=r"settings: model\.init_args\.widths\.2 was null and is 32\. Give this one"):
        EvaluationFolder(tmp_path / "run", "first").claim(longer)
    EvaluationFolder(tmp_path / "run", "second").claim(other)


def test_settings_of_an_evaluation_that_failed_before_its_first_score_bind_nobody(tmp_path, save):
    failed = EvaluationFolder(tmp_path / "run", "first")
    failed.claim({"passes": 1})
    with pytest.raises(ValueError, match="passes was 1 and is 2"):  # that evaluator is still at work
        EvaluationFolder(tmp_path / "run", "first").claim({"passes": 2})
    del failed
    corrected = EvaluationFolder(tmp_path / "run", "first")
    corrected.claim({"passes": 2})
    scored(corrected, read(save("step_5.ckpt", 5)), loss=1.0)
    del corrected
    with pytest.raises(ValueError, match="passes was 2 and is 1"):
        EvaluationFolder(tmp_path / "run", "first").claim({"passes": 1})


def test_one_batch_is_another_setting_than_all_of_them_and_is_told(tmp_path):
    folder = EvaluationFolder(tmp_path / "run", "first")
    folder.claim({"batches": 1})
    with pytest.raises(ValueError, match=r"batches was 1 and is 1\.0"):
        EvaluationFolder(tmp_path / "run", "first").claim({"batches": 1.0})
    assert folder.unusual == ", 1 of the batches"
    second = EvaluationFolder(tmp_path / "run", "second")
    second.claim({"batches": 1.0, "precision": "bf16-mixed"})
    assert second.unusual == ", bf16-mixed"


def test_scores_belong_to_weights_not_to_files(folder, save):
    kept = read(save("step_5.ckpt", 5, weight=1.0, callbacks={"a": 1}))
    assert not folder.is_scored(kept)
    scored(folder, kept, loss=2.5)
    assert folder.is_scored(kept)
    assert folder.is_scored(read(save("last.ckpt", 5, weight=1.0, callbacks={"a": 2})))  # the same weights
    assert not folder.is_scored(read(save("last.ckpt", 5, weight=1.5)))  # a run that went back and took another way
    assert not folder.is_scored(read(save("last.ckpt", 6, weight=1.0)))
    (record,) = folder.evaluated().values()
    assert (record.step, record.scores, record.checkpoint) == (5, {"loss": 2.5}, str(kept.path.resolve()))


def test_steps_are_in_the_order_of_their_numbers(folder, save):
    for step in (10, 9, 100):
        scored(folder, read(save(f"{step}.ckpt", step)), loss=float(step))
    assert list(folder.evaluated()) == [9, 10, 100]


def test_a_step_is_locked_for_one(tmp_path, folder):
    other = EvaluationFolder(tmp_path / "run", "first")
    held = folder.lock(5)
    assert other.lock(5) is None
    assert other.lock(6) is not None
    held.release()
    assert other.lock(5) is not None


def test_a_snapshot_outlives_its_file_and_leaves_nothing_behind(folder, save):
    path = save("last.ckpt", 5, weight=1.0)
    candidate = read(path)
    content = path.read_bytes()
    snapshot = folder.take_snapshot(candidate)
    save("new.ckpt", 6).replace(path)
    assert snapshot.read_bytes() == content
    assert folder.snapshots() == {snapshot: path}
    folder.discard_snapshots(5)
    assert not folder.step_folder(5).exists()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        folder.take_snapshot(candidate)


def test_a_file_system_without_links_gets_a_copy(folder, save, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr("os.link", refused)
    candidate = read(save("last.ckpt", 5))
    snapshot = folder.take_snapshot(candidate)
    assert snapshot.read_bytes() == candidate.path.read_bytes()
    assert snapshot.stat().st_ino != candidate.path.stat().st_ino


def test_a_snapshot_that_was_left_beside_its_scores_is_removed(folder, save):
    candidate = read(save("last.ckpt", 5))
    scored(folder, candidate, loss=1.0)
    left = folder.take_snapshot(candidate)
    assert folder.snapshots() == {}
    folder.claim({"stage": "validate"})
    assert not left.exists()


def test_a_damaged_record_names_the_mend(folder, save):
    scored(folder, read(save("last.ckpt", 5)), loss=1.0)
    path = folder.step_folder(5) / "evaluated.json"
    path.write_text(json.dumps({"step": 5}))
    with pytest.raises(ValueError, match=r"step_5/evaluated.json: damaged; delete it to have the step evaluated again"):
        folder.evaluated()
