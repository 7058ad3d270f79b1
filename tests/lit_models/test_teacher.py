"""LitFractal with a teacher: it is found in its run folder, frozen, and in no checkpoint."""

import os
import shutil

import pytest
import torch
from fractal_runs import write_run
from lightning.pytorch import Callback, Trainer
from sdvar_lit_toys import lit_sdvar
from var_toys import lit_var, lit_vqvae

from lit_models import LitFractal, Optimization, companions
from litscale.models.fractal import CanvasNetwork, Fractal

SIZES = {"sizes": [[8, 8], [8, 1], [1, 1]], "generators": ["mar", "ar"], "velocity_bins": 1, "guiding": True}


def network(width, **options):
    """A network of a width."""
    return SIZES | {"widths": [width] * 3, "blocks": [1] * 3, "heads": [2] * 3} | options


def student(path, **options):
    """A small LitFractal with a teacher."""
    torch.manual_seed(0)
    options = {"optimization": Optimization(lr=1e-2), "teacher_checkpoint": str(path)} | options
    return LitFractal(Fractal(**network(8)), **options)


class Watch(Callback):
    """Keeps what the training steps report, and looks at the teacher."""

    def __init__(self):
        self.reports = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Keep one."""
        self.reports.append(outputs["report"] | {"total": outputs["loss"].item()})
        (teacher,) = pl_module._teacher
        assert not any(part.training for part in teacher.modules())
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
        self.teacher = {name: value.clone() for name, value in teacher.state_dict().items()}


def trainer(folder, steps, *callbacks):
    """A quiet trainer."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu", max_steps=steps, default_root_dir=folder, callbacks=list(callbacks), limit_val_batches=0,
        enable_checkpointing=False, log_every_n_steps=1, **quiet
    )  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A checkpoint of a wider network in its run folder."""
    return write_run(tmp_path_factory.mktemp("teacher"), network(16))


def test_the_teacher_teaches_and_stays_as_it_is(tmp_path, toy_data, teacher):
    watch, module = Watch(), student(teacher, data_weight=0.25)
    names = module.state_dict().keys()
    run = trainer(tmp_path, 3, watch)
    run.fit(module, datamodule=toy_data())
    report = watch.reports[0]
    parts = {"loss/leaf", "loss/level_1", "divergence/leaf", "divergence/level_1", "mask_fraction/level_0"}
    assert report.keys() == parts | {"entropy", "total"}
    data, told = (sum(report[f"{kind}/{name}"] for name in ("leaf", "level_1")) for kind in ("loss", "divergence"))
    assert report["total"] == pytest.approx((0.25 * data + 0.75 * told).item(), rel=1e-5)
    saved = torch.load(teacher, weights_only=True)["state_dict"]
    assert {f"network.{name}" for name in watch.teacher} <= saved.keys()
    assert all(torch.equal(value, saved[f"network.{name}"]) for name, value in watch.teacher.items())
    # neither the checkpoint nor the optimiser has it, and it goes when training ends
    assert module.state_dict().keys() == names
    assert not any("teacher" in name for name in names)
    held = sum(len(group["params"]) for group in run.optimizers[0].param_groups)
    assert held == len(list(module.network.parameters()))
    assert module._teacher == ()


def test_evaluation_does_not_need_the_teacher(tmp_path, toy_data):
    module = student(tmp_path / "gone.ckpt")
    quiet = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    quiet.validate(module, datamodule=toy_data(), verbose=False)
    assert module.weight_files() == {}


def test_a_student_learns_its_teacher(tmp_path, toy_data, teacher):
    watch = Watch()
    trainer(tmp_path, 40, watch).fit(student(teacher), datamodule=toy_data())
    first, last = watch.reports[0]["total"], watch.reports[-1]["total"]
    assert last < 0.5 * first


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda folder: (folder / "checkpoints" / "last.ckpt").unlink(),
            FileNotFoundError,
            r"last.ckpt: no such file\. Give a run folder with its config\.yaml",
        ),
        (
            lambda folder: os.truncate(folder / "checkpoints" / "last.ckpt", 1000),
            ValueError,
            r"last.ckpt is damaged or truncated.*: use another copy\. Give a run folder",
        ),
        (lambda folder: (folder / "config.yaml").unlink(), FileNotFoundError, "config.yaml: no such file.*config.yaml"),
        (
            lambda folder: (folder / "config.yaml").write_text(
                (folder / "config.yaml").read_text().replace("guiding: true", "guiding: false")
            ),
            ValueError,
            "does not fit the model of .*except widths, blocks, heads, positions and dropout",
        ),
    ],
)
def test_one_error_names_the_teacher(tmp_path, toy_data, teacher, spoil, error, message):
    folder = shutil.copytree(teacher.parents[1], tmp_path / "teacher")
    spoil(folder)
    module = student(folder / "checkpoints" / "last.ckpt")
    with pytest.raises(error, match=f"(?s)^teacher_checkpoint.*{message}") as caught:
        trainer(tmp_path, 1).fit(module, datamodule=toy_data())
    assert str(caught.value).count("last.ckpt") <= 1


@pytest.mark.parametrize("make", [lit_var, lit_vqvae, lit_sdvar])
def test_a_module_of_another_kind_is_refused(monkeypatch, teacher, make):
    """Also one of several networks."""
    module = make()
    monkeypatch.setattr(companions, "load_run", lambda folder, checkpoint: module)
    with pytest.raises(ValueError, match=f"^teacher_checkpoint .*last.ckpt: it is a {type(module).__name__} without"):
        student(teacher).on_fit_start()


def test_other_sizes_are_refused(tmp_path, toy_data, teacher):
    options = network(8, sizes=[[8, 8], [4, 1], [1, 1]])
    module = LitFractal(Fractal(**options), teacher_checkpoint=str(teacher))
    with pytest.raises(
        ValueError, match=r"(?s)the teacher has sizes \[\[8, 8\], \[8, 1\], .* instead of \[\[8, 8\], \[4"
    ):
        trainer(tmp_path, 1).fit(module, datamodule=toy_data())


def test_the_part_of_the_data_is_checked(teacher):
    with pytest.raises(ValueError, match=r"data_weight must be in 0..1, not 1.5"):
        student(teacher, data_weight=1.5)
    with pytest.raises(ValueError, match=r"data_weight 0.5 needs a teacher: give teacher_checkpoint"):
        student(teacher, teacher_checkpoint=None, data_weight=0.5)


def test_another_network_cannot_be_taught(tmp_path, toy_data, teacher):
    class Own(CanvasNetwork):
        """A network of one's own."""

        def forward(self, canvas, label=None, with_entropy=False):
            """Nothing."""

        nll_of_passes = forward

    like = Fractal(**network(8))
    module = LitFractal(Own(like.codec, like.sizes), teacher_checkpoint=str(teacher))
    with pytest.raises(ValueError, match=r"teacher_checkpoint needs litscale\.models\.fractal\.Fractal, not Own"):
        module.on_fit_start()


def test_a_teacher_with_periods_is_told_where_canvases_begin(tmp_path, teacher):
    """Also by a student without periods, whose batches hold the start all the same."""
    module = student(teacher)
    batch = {"canvas": torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "start": torch.tensor([3, 8])}
    assert module._start(batch) == {}
    module._teacher = (Fractal(**network(16), periods=[4]).eval(),)
    assert module._start(batch)["start"] is batch["start"]
