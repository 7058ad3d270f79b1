"""LitFractal with a draft: it is found in its run folder, guesses for exact decoding, and is in no checkpoint."""

import shutil
from dataclasses import replace

import pytest
import torch
from fractal_runs import write_run
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lit_models import Generation, LitFractal
from litscale.models.fractal import Fractal

DRAFTED = Generation(guess="draft", temperature=0.8)
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def network(width, **options):
    """Options of a network of a width."""
    sizes = {"sizes": [[8, 8], [8, 1], [1, 1]], "generators": ["ar", "ar"], "velocity_bins": 1, "scan": "column_major"}
    return sizes | {"widths": [width] * 3, "blocks": [1] * 3, "heads": [2] * 3} | options


def module(path, generation=DRAFTED, **options):
    """A LitFractal whose symbols depend on each other, with a draft."""
    torch.manual_seed(0)
    built = LitFractal(Fractal(**network(16, **options)), generation=generation, draft_checkpoint=path and str(path))
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    """A checkpoint of a narrower network in its run folder."""
    return write_run(tmp_path_factory.mktemp("draft"), network(8))


def predicted(folder, made):
    """The samples of two requests, one of which has known cells, and what their decoding took."""
    canvas = torch.randint(0, 3, (2, 3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    known = torch.zeros(2, 3, 1, 8, 8, dtype=torch.bool)
    known[1, ..., :3] = True
    numbers = torch.arange(3)
    requests = [
        {"canvas": canvas[i] * known[i], "known": known[i], "index": numbers + 3 * i, "seed": 4} for i in (0, 1)
    ]
    batches = Trainer(default_root_dir=folder, **QUIET).predict(made, DataLoader(requests, batch_size=None))
    return torch.cat([batch["canvas"] for batch in batches]), [batch["decoding"] for batch in batches]


def test_predictions_with_a_draft_are_the_sequential_ones(tmp_path, draft):
    drafting = module(draft)
    samples, reports = predicted(tmp_path, drafting)
    sequential, _ = predicted(tmp_path, module(None, replace(DRAFTED, guess="repeat", decoding="sequential")))
    assert torch.equal(samples, sequential)
    assert len(samples.unique()) == 3
    assert [report["draft_passes"] >= 5 for report in reports] == [True, True]
    # what has drafted is the network of the run, which nothing else of the module knows
    (held,) = drafting._draft
    saved = torch.load(draft, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"network.{name}"]) for name, value in held.state_dict().items())
    assert not any(parameter.requires_grad for parameter in held.parameters())
    ids = {id(parameter) for parameter in held.parameters()}
    assert not ids & {id(parameter) for parameter in drafting.parameters()}


def test_checkpoints_are_those_without_a_draft(tmp_path, draft, toy_data):
    saved = []
    for name, made in (("with", module(draft)), ("without", module(None, Generation()))):
        run = Trainer(default_root_dir=tmp_path, max_steps=1, limit_val_batches=0, enable_checkpointing=False, **QUIET)
        run.fit(made, datamodule=toy_data())
        run.save_checkpoint(tmp_path / f"{name}.ckpt")
        saved.append(torch.load(tmp_path / f"{name}.ckpt", weights_only=True))
    ours, theirs = saved
    assert ours.keys() == theirs.keys()
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    counts = [len(part["optimizer_states"][0]["state"]) for part in saved]
    assert counts[0] == counts[1]


def test_a_run_folder_means_its_best_checkpoint_or_its_last(tmp_path, draft):
    folder = shutil.copytree(draft.parents[1], tmp_path / "run")
    last = torch.load(draft, weights_only=True)["state_dict"]
    best = {name: value + 1 for name, value in last.items()}
    for expected in (last, best):
        made = module(folder)
        made.generate(batch_size=1, seed=0)
        (held,) = made._draft
        assert torch.equal(held.no_class, expected["network.no_class"])
        torch.save({"state_dict": best}, folder / "checkpoints" / "best.ckpt")


def test_the_draft_follows_the_dtype_and_draws_no_random_numbers(draft):
    made = module(draft).to(torch.bfloat16)
    torch.manual_seed(3)
    drawn = made.generate(batch_size=2)
    torch.manual_seed(3)
    assert torch.equal(drawn, made.generate(batch_size=2))  # the first call has loaded the draft
    assert made._draft[0].no_class.dtype == torch.bfloat16


def test_a_guess_without_a_draft_and_a_draft_without_its_guess_are_refused(draft):
    with pytest.raises(ValueError, match="guess draft needs draft_checkpoint, the run of a smaller network: give it"):
        module(None)
    with pytest.raises(ValueError, match=r"draft_checkpoint needs generation.guess draft, not repeat: set one of them"):
        module(draft, Generation())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 3}, "the draft has num_classes 0 instead of 3"),
        (
            {"generators": ["ar", "mar"]},
            r"needs two networks of AR levels only.*: here the levels of the network are ar, mar\. ",
        ),
        ({"scan": "row_major"}, "give it the same scan"),
        ({"codec": "binary"}, "the draft has codec onset_hold instead of binary, alphabet 3 instead of 2"),
    ],
)
def test_a_draft_that_does_not_fit_is_named_before_anything_is_made(tmp_path, draft, toy_data, options, message):
    run = Trainer(default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=f"(?s)^draft_checkpoint .*last.ckpt: .*{message}"):
        run.predict(module(draft, **options), datamodule=toy_data())


def test_a_missing_draft_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"draft_checkpoint .*gone: no such file"):
        module(tmp_path / "gone").generate()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"(?s)draft_checkpoint .*empty: .*config.yaml: no such file"):
        module(tmp_path / "empty").generate()
