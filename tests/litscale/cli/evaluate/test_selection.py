"""Which checkpoints are evaluated."""

import pytest
import torch

from litscale.cli.evaluate.selection import Candidate, CheckpointReader, Selection
from litscale.storage.checkpoints import STAMP


def names(selection, run):
    return [path.name for path in selection.paths(run)]


def test_files_are_selected_by_word_and_glob(tmp_path, save):
    for name in ("best.ckpt", "last.ckpt", "step_5.ckpt", "step_10.ckpt", ".last.earlier.ckpt", "notes.txt"):
        save(name, 5)
    run = tmp_path / "run"
    assert names(Selection(), run) == ["best.ckpt", "last.ckpt", "step_10.ckpt", "step_5.ckpt"]
    assert names(Selection(best=True), run) == ["best.ckpt"]
    assert names(Selection(last=True, pattern="step_1*"), run) == ["last.ckpt", "step_10.ckpt"]
    assert names(Selection(pattern="*_5.ckpt"), run) == ["step_5.ckpt"]
    assert names(Selection(), tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(best=True, pattern="x*"), "no checkpoint that --best --checkpoints 'x*' selects; there are a.ckpt"),
        (Selection(last=True), "no checkpoint that --last selects; there are a.ckpt"),
    ],
)
def test_an_empty_selection_names_what_there_is(tmp_path, save, selection, message):
    save("a.ckpt", 1)
    assert selection.nothing(tmp_path / "run").endswith(message)
    assert Selection().nothing(tmp_path / "empty").endswith("has no checkpoint to evaluate; there are none")


def of(tmp_path, *found):
    return [Candidate(tmp_path / name, step, None, snapshot) for name, step, snapshot in found]


def test_a_step_is_due_once_by_the_file_that_stays_longest(tmp_path):
    found = of(
        tmp_path,
        ("last.ckpt", 20, None),
        ("best.ckpt", 20, None),
        ("epoch.ckpt", 10, None),
        ("best.ckpt", 10, None),
        ("last.ckpt", 15, tmp_path / ".last.ckpt"),
        ("epoch.ckpt", 20, tmp_path / ".epoch.ckpt"),
    )
    due = Selection().due(found, scored=[])
    assert [(each.path.name, each.step) for each in due] == [("epoch.ckpt", 10), ("last.ckpt", 15), ("best.ckpt", 20)]
    assert due[1].file == tmp_path / ".last.ckpt"
    assert due[2].file == tmp_path / "best.ckpt"


def test_every_takes_the_first_step_of_each_stretch_also_as_others_appear(tmp_path):
    steps = [391, 782, 1000, 1173, 2346, 2737, 3128]
    found = of(tmp_path, *((f"{step}.ckpt", step, None) for step in steps))
    assert [each.step for each in Selection(every=1000).due(found, [])] == [391, 1000, 2346, 3128]
    # 391 was removed; its stretch has its scores
    assert [each.step for each in Selection(every=1000).due(found[1:], [391, 1000])] == [1000, 2346, 3128]


def test_what_cannot_be_read_is_told_once(tmp_path, save, capsys):
    good, bad, strange = save("good.ckpt", 4), tmp_path / "bad.ckpt", tmp_path / "strange.ckpt"
    bad.write_bytes(b"no checkpoint")
    torch.save({"weights": 1}, strange)
    reader = CheckpointReader()
    for _ in range(2):
        (candidate,) = reader.candidates([good, bad, strange])
    assert (candidate.path, candidate.step) == (good, 4)
    assert candidate.checksum == torch.load(good, weights_only=True)[STAMP]
    out = capsys.readouterr().out
    assert out.count("bad.ckpt") == 1
    assert out.count("strange.ckpt names no step") == 1
    save("good.ckpt", 5)
    assert reader.read(good).step == 5
    good.unlink()
    assert reader.read(good) is None
    assert f"{good} was removed meanwhile: skipped" in capsys.readouterr().out
