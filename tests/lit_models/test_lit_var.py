"""LitVAR in a trainer: losses, evaluation, tokenizer in the checkpoint, generation, resuming, errors."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader
from var_toys import Outputs, ToyImages, lit_var, lit_vqvae, quiet, resumed, same, vqvae

from lit_models import LitVAR, Optimization, VARGeneration
from lit_models.tokenizer.weights import checksum
from litscale.models.var import VAR, to_official

SIZES = [1, 4, 16]


def tokens_of(module, canvas):
    return torch.cat(module.network.vqvae.encode(canvas / 127.5 - 1), 1)


def teacher_forced(module, canvas, label):
    """Logits and tokens of all scales."""
    tokens = module.network.vqvae.encode(canvas / 127.5 - 1)
    return module.network(label, module.network.vqvae.quantizer.teacher_input(tokens)), torch.cat(tokens, 1)


def test_report_holds_each_scale(tmp_path):
    module, data, seen = lit_var(label_drop=0.0), ToyImages(images=4), Outputs()
    logits, tokens = teacher_forced(module, data.canvas, data.label)
    nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").detach()
    quiet(tmp_path, max_steps=1, callbacks=[seen]).fit(module, datamodule=data)
    report = seen.reports[0]
    assert report.keys() == {f"{name}/scale_{k}" for name in ("loss", "accuracy") for k in range(3)}
    assert seen.losses[0] == pytest.approx(nats.mean().item(), rel=1e-5)
    for k, (part, hits) in enumerate(
        zip(nats.split(SIZES, 1), (logits.argmax(-1) == tokens).split(SIZES, 1), strict=True)
    ):
        assert report[f"loss/scale_{k}"].item() == pytest.approx(part.mean().item(), rel=1e-5)
        assert report[f"accuracy/scale_{k}"].item() == pytest.approx(hits.float().mean().item())


def test_tokens_of_a_cache_give_the_same_loss_as_images(tmp_path):
    losses = []
    for cached in (False, True):
        module, data, seen = lit_var(), ToyImages(), Outputs()
        items = data.items()
        if cached:
            tokens = tokens_of(module, data.canvas).short()
            items = [{"tokens": row, "label": label} for row, label in zip(tokens, data.label, strict=True)]
        quiet(tmp_path, max_steps=4, callbacks=[seen]).fit(module, DataLoader(items, 4))
        losses.append(seen.losses)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_is_the_mean_over_images(tmp_path, stage):
    module, data = lit_var().eval(), ToyImages(images=6)  # a batch of 4 and one of 2
    quantizer = module.network.vqvae.quantizer
    module.frequencies += quantizer.count(module.network.vqvae.encode(data.canvas[:3] / 127.5 - 1))
    found = getattr(quiet(tmp_path), stage)(module, datamodule=data, verbose=False)[0]
    prefix = "val" if stage == "validate" else "test"
    with torch.no_grad():
        logits, tokens = teacher_forced(module, data.canvas, data.label)
    nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    assert found[f"{prefix}/nats_per_image"] == pytest.approx(nats.sum(1).mean().item(), rel=1e-5)
    assert found[f"{prefix}/nats_per_token"] == pytest.approx(nats.mean().item(), rel=1e-5)
    assert found[f"{prefix}/loss/scale_1"] == pytest.approx(nats[:, 1:5].mean().item(), rel=1e-5)
    assert found[f"{prefix}/accuracy"] == pytest.approx((logits.argmax(-1) == tokens).float().mean().item(), rel=1e-5)
    counts = module.frequencies
    expected = sum(
        -math.log((counts[k, token] + 1) / (counts[k].sum() + 16))
        for row in tokens
        for k, part in enumerate(row.split(SIZES))
        for token in part
    )
    assert found[f"{prefix}/unigram_nats_per_image"] == pytest.approx(expected / 6, rel=1e-5)
    assert found[f"{prefix}/unigram_nats_per_token"] == pytest.approx(expected / 6 / 21, rel=1e-5)
    assert not any("bits_per_dim" in name for name in found)


def test_frequencies_are_those_of_the_training_batches(tmp_path):
    module, data = lit_var(), ToyImages()
    quiet(tmp_path, max_epochs=1, limit_val_batches=0).fit(module, datamodule=data)
    counts = module.network.vqvae.quantizer.count(module.network.vqvae.encode(data.canvas / 127.5 - 1))
    assert torch.equal(module.frequencies, counts)


def test_progressive_training_adds_scale_after_scale(tmp_path):
    module, seen = lit_var(progressive_steps=6, progressive_first=1), Outputs()
    assert [module.active_scales(step) for step in range(8)] == [1, 1, 2, 2, 3, 3, 3, 3]
    assert [lit_var(progressive_steps=4, progressive_first=2).active_scales(step) for step in range(5)] == [
        2,
        2,
        3,
        3,
        3,
    ]
    assert lit_var().active_scales(0) == 3
    quiet(tmp_path, max_steps=5, callbacks=[seen]).fit(module, datamodule=ToyImages(images=32))
    assert [report["scales"].item() for report in seen.reports] == [1, 1, 2, 2, 3]
    assert [len(report) for report in seen.reports] == [3, 3, 5, 5, 7]
    for k, index in enumerate((0, 2, 4)):
        means = [seen.reports[index][f"loss/scale_{scale}"].item() for scale in range(k + 1)]
        weights = SIZES[: k + 1]
        mean = sum(a * b for a, b in zip(means, weights, strict=True)) / sum(weights)
        assert seen.losses[index] == pytest.approx(mean, rel=1e-5)


def test_late_scales_are_trained_alone(tmp_path):
    """The loss is that of their tokens; the report still has all scales."""
    module, seen = lit_var(label_drop=0.0, scales=(1, 3), optimization=Optimization(lr=1e-12)), Outputs()
    data = ToyImages(4)
    quiet(tmp_path, max_steps=1, callbacks=[seen], limit_val_batches=0).fit(module, data)
    logits, tokens = teacher_forced(module.eval(), data.canvas, data.label)
    nats = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    assert seen.losses == pytest.approx([nats[:, 1:].mean().item()], rel=1e-5)
    assert seen.reports[0]["loss/scale_0"].item() == pytest.approx(nats[:, 0].mean().item(), rel=1e-5)
    assert {f"loss/scale_{k}" for k in range(3)} <= seen.reports[0].keys()
    assert module.batch_counts(next(iter(data.train_dataloader())))["tokens"] == 4 * (4 + 16)
    with pytest.raises(ValueError, match=r"scales must be \[first, end\] with 0 <= first < end <= 3.* not \[2, 4\]"):
        lit_var(scales=(2, 4))
    with pytest.raises(ValueError, match="progressive_steps trains all scales: set it to 0, or scales to null"):
        lit_var(scales=(1, 3), progressive_steps=4)


def test_a_fit_starts_from_the_weights_of_another_run(tmp_path):
    first = lit_var()
    trainer = quiet(tmp_path, max_steps=2, limit_val_batches=0)
    trainer.fit(first, ToyImages())
    trainer.save_checkpoint(path := str(tmp_path / "first.ckpt"))
    tokenizer = vqvae()
    torch.nn.init.normal_(tokenizer.quantizer.codebook.weight)  # another one, which the file replaces
    second = lit_var(tokenizer, network_checkpoint=path, scales=(2, 3), optimization=Optimization(lr=1e-12))
    quiet(tmp_path, max_steps=1, limit_val_batches=0).fit(second, ToyImages())
    torch.testing.assert_close(dict(second.network.state_dict()), dict(first.network.state_dict()))
    assert torch.equal(tokenizer.quantizer.codebook.weight, first.network.vqvae.quantizer.codebook.weight)
    with pytest.raises(ValueError, match=r"belongs to another network.*give network the options of its training"):
        quiet(tmp_path, max_steps=1).fit(lit_var(depth=1, network_checkpoint=path), ToyImages())


def test_label_smoothing_changes_the_loss_but_not_the_report(tmp_path):
    seen = [Outputs(), Outputs()]
    for smoothing, outputs in zip((0.0, 0.2), seen, strict=True):
        quiet(tmp_path, max_steps=1, callbacks=[outputs]).fit(
            lit_var(label_smoothing=smoothing), datamodule=ToyImages()
        )
    assert seen[0].losses != seen[1].losses
    assert seen[0].reports == seen[1].reports


def test_the_checkpoint_brings_its_tokenizer(tmp_path):
    module, data = lit_var(), ToyImages()
    callbacks = [EMAWeightAveraging(decay=0.5, use_buffers=False)]
    trainer = quiet(tmp_path, max_steps=2, callbacks=callbacks)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "var.ckpt")
    batch = {"canvas": data.canvas[:2], "known": torch.zeros_like(data.canvas[:2], dtype=torch.bool), "seed": 5}
    batch |= {"index": torch.arange(2), "label": torch.tensor([0, 2])}
    expected = module.predict_step(batch, 0)["canvas"]
    other = vqvae()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    again = lit_var(other, tokenizer_checkpoint=str(tmp_path / "gone.ckpt"))
    path = tmp_path / "var.ckpt"
    loader = DataLoader([batch], batch_size=None)
    (found,) = quiet(tmp_path).predict(again, loader, ckpt_path=path, weights_only=True)
    assert torch.equal(found["canvas"], expected)
    assert checksum(again.network.vqvae) == checksum(module.network.vqvae)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["tokenizer"]["state_dict"]["quantizer.codebook.weight"][0, 0] += 1
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    with pytest.raises(ValueError, match=r"the tokenizer in the checkpoint is damaged: its checksum differs"):
        quiet(tmp_path).validate(lit_var(), datamodule=data, ckpt_path=tmp_path / "damaged.ckpt")
    with pytest.raises(
        ValueError,
        match=r"tokenizer in the checkpoint has another architecture: .*codebook.weight is \[16, 8\] instead",
    ):
        quiet(tmp_path).validate(lit_var(vqvae(vocab=32)), datamodule=data, ckpt_path=path)
    with pytest.raises(ValueError, match=r"the checkpoint has another architecture: missing network.blocks.2"):
        quiet(tmp_path).validate(lit_var(depth=3), datamodule=data, ckpt_path=path)
    del checkpoint["tokenizer"]
    torch.save(checkpoint, tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match=r"the checkpoint holds no tokenizer"):
        quiet(tmp_path).validate(lit_var(), datamodule=data, ckpt_path=tmp_path / "bare.ckpt")


def test_the_tokenizer_comes_from_its_run_or_an_official_file(tmp_path):
    trained, data = lit_vqvae(), ToyImages()
    trainer = quiet(tmp_path, max_steps=2)
    trainer.fit(trained, datamodule=data)
    trainer.save_checkpoint(tmp_path / "vqvae.ckpt")
    torch.save(to_official(trained.network), tmp_path / "official.pth")
    for name in ("vqvae.ckpt", "official.pth"):
        module = lit_var(tokenizer_checkpoint=str(tmp_path / name))
        assert checksum(module.network.vqvae) != checksum(trained.network)
        quiet(tmp_path).validate(module, datamodule=data, verbose=False)
        assert checksum(module.network.vqvae) == checksum(trained.network)
    for name in ("vqvae.ckpt", "official.pth"):
        module = lit_var(vqvae(vocab=32), tokenizer_checkpoint=str(tmp_path / name))
        with pytest.raises(
            ValueError, match=r"belongs to another tokenizer \(.*is \[16, 8\] instead of \[32, 8\].*patch_nums, voc"
        ):
            quiet(tmp_path).validate(module, datamodule=data)
    with pytest.raises(FileNotFoundError, match=r"tokenizer_checkpoint nowhere.ckpt: no such file"):
        quiet(tmp_path).validate(lit_var(tokenizer_checkpoint="nowhere.ckpt"), datamodule=data)


def test_an_untrained_tokenizer_is_refused(tmp_path):
    module = lit_var()
    module.network.vqvae.quantizer.hits.zero_()
    with pytest.raises(ValueError, match=r"the tokenizer was never trained: give tokenizer_checkpoint"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=ToyImages())


def test_the_tokenizer_stays_as_it_is(tmp_path):
    module = lit_var()
    before = checksum(module.network.vqvae)
    quiet(tmp_path, max_steps=3).fit(module, datamodule=ToyImages())
    assert checksum(module.network.vqvae) == before
    assert not module.network.vqvae.training
    assert not any("quantizer" in name or "encoder" in name for name in module.state_dict())


def test_samples_depend_on_seed_and_row_alone():
    module = lit_var(generation=VARGeneration(cfg=0.5))
    labels = torch.tensor([0, 1, 2])
    first = module.generate(labels, seed=4)
    assert first.dtype == torch.uint8
    assert first.shape == (3, 1, 8, 8)
    torch.manual_seed(99)
    assert torch.equal(module.generate(labels, seed=4), first)
    assert torch.equal(module.generate(labels[:2], seed=4), first[:2])
    others = [module.generate(labels, seed=seed) for seed in (5, 6)]
    assert not torch.equal(others[0], first)
    # batch k draws from seed + k: no sample of one batch is another's
    same_class = [module.generate(torch.zeros(3, dtype=torch.long), seed=seed) for seed in (4, 5)]
    flat = torch.cat(same_class).flatten(1)
    assert len(flat.unique(dim=0)) == 6
    assert module.generate(batch_size=2, seed=0).shape == (2, 1, 8, 8)
    assert lit_var(num_classes=0).generate(labels, seed=0).shape == (3, 1, 8, 8)


def test_known_cells_are_kept_and_steer_the_rest():
    module, data = lit_var(generation=VARGeneration(cfg=0.0)), ToyImages()
    known = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    known[..., :4] = True
    labels = torch.tensor([0, 1])
    canvas, other = data.canvas[:2], data.canvas[2:4]
    made = module.generate(labels, canvas=canvas, known=known, seed=1)
    assert torch.equal(made[known], canvas[known])
    noise = torch.randint_like(canvas, 256)
    assert torch.equal(module.generate(labels, canvas=torch.where(known, canvas, noise), known=known, seed=1), made)
    assert not torch.equal(module.generate(labels, canvas=other, known=known, seed=1)[~known], made[~known])
    free = module.generate(labels, seed=1)
    assert not torch.equal(free[~known], made[~known])
    nothing = torch.zeros_like(known)
    assert torch.equal(module.generate(labels, canvas=canvas, known=nothing, seed=1), free)


def test_predict_records_the_picture_after_each_scale():
    module, data = lit_var(), ToyImages()
    module.record_frames = True
    canvas, known = data.canvas[:2], torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    known[..., 0, :] = True
    out = module.predict_step({"canvas": canvas, "known": known, "index": torch.tensor([4, 5]), "seed": 9}, 0)
    assert len(out["frames"]) == 3
    assert torch.equal(out["frames"][-1][0], out["canvas"])
    assert not torch.equal(out["frames"][0][0], out["canvas"])
    assert all(done.all() for _, done in out["frames"])
    assert torch.equal(out["canvas"][known], canvas[known])
    assert out["settings"] == {"seed": 9, "cfg": 1.5, "top_k": 0, "top_p": 0.0, "temperature": 1.0} | {
        "greedy": False,
        "smooth": False,
        "cfg_until": None,
        "prune": None,
    }
    assert out["label"] is None
    assert out["index"].tolist() == [4, 5]


def test_rolls_come_back_as_symbols():
    module = lit_var(vqvae(in_channels=2), codec="onset_hold", velocity_bins=3)
    made = module.generate(torch.tensor([0, 1]), seed=0)
    assert made.shape == (2, 1, 8, 8)
    assert made.max() <= 4


def test_a_run_that_was_stopped_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    whole, broken = resumed(tmp_path, lambda: lit_var(num_classes=10, dropout=0.1, progressive_steps=8))
    same(whole, broken, ("state_dict", "optimizer_states", "lr_schedulers", "tokenizer"))


@pytest.mark.parametrize(
    ("precision", "grad_checkpointing", "tolerance"), [("32-true", True, 1e-5), ("bf16-mixed", False, 0.02)]
)
def test_bf16_and_checkpointing_keep_the_loss(tmp_path, precision, grad_checkpointing, tolerance):
    losses = []
    for changed in (False, True):
        seen, module = Outputs(), lit_var(grad_checkpointing=changed and grad_checkpointing)
        trainer = quiet(tmp_path, max_steps=4, callbacks=[seen], precision=precision if changed else "32-true")
        trainer.fit(module, datamodule=ToyImages())
        losses.append(seen.losses)
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["dense", "scales"])
def test_compiled_blocks_change_neither_loss_nor_names(tmp_path, attention):
    losses = []
    for compile_blocks in (False, True):
        module, seen = lit_var(compile_blocks=compile_blocks, attention=attention), Outputs()
        quiet(tmp_path, max_steps=3, callbacks=[seen]).fit(module, datamodule=ToyImages())
        losses.append(seen.losses)
        sampled = module.generate(batch_size=1, seed=0)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    plain = lit_var()
    assert module.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.generate(batch_size=1, seed=0), sampled)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VARGeneration(cfg=-1), r"cfg must not be negative"),
        (lambda: VARGeneration(top_p=1.5), r"top_p must be in 0..1"),
        (
            lambda: lit_var(generation=VARGeneration(cfg_until=4)),
            r"cfg_until is 4, but must be in 0\.\.3, the number of sc",
        ),
        (lambda: lit_var(label_smoothing=1.0), r"label_smoothing must be in 0..1, not 1.0"),
        (lambda: lit_var(progressive_first=4), r"progressive_first must be in 1..3, the number of scales, not 0 and 4"),
        (lambda: LitVAR(VAR(vqvae(), 3, 1, 8, 1), codec="rgb"), r"codec rgb has 3 planes, but the tokenizer's in_chan"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("canvas_shape", (1, 16, 16), r"the tokenizer takes \[1, 8, 8\] with 256"),
        (
            "num_classes",
            4,
            r"the data has 4 classes, the network 3: set the network's num_classes to 4, or the data's ",
        ),
        ("label", torch.full((16,), 3), r"labels must be in -1..2, got 3..3"),
    ],
)
def test_data_that_does_not_fit_is_refused(tmp_path, attribute, value, message):
    data = ToyImages()
    setattr(data, attribute, value)
    with pytest.raises(ValueError, match=message):
        quiet(tmp_path, max_steps=1).fit(lit_var(label_drop=0.0), datamodule=data)


def test_nan_loss_stops_before_the_step(tmp_path):
    module = lit_var()
    with torch.no_grad():
        module.network.head.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 0: lower the learning rate"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=ToyImages())


@pytest.mark.parametrize("sides", [(1, 3, 4), (1, 2, 4)])
def test_a_tokenizer_at_other_scales_than_those_of_its_training_is_noted(tmp_path, caplog, sides):
    trainer = quiet(tmp_path)
    trainer.strategy.connect(lit_vqvae())
    trainer.save_checkpoint(tmp_path / "vqvae.ckpt")
    module = lit_var(vqvae(patch_nums=sides), tokenizer_checkpoint=str(tmp_path / "vqvae.ckpt"))
    with caplog.at_level("INFO"):
        for _ in range(2):
            quiet(tmp_path, max_steps=1).fit(module, datamodule=ToyImages())
    notes = [message for message in caplog.messages if "vqvae.ckpt was trained at patch_nums" in message]
    assert len(notes) == (1 if sides == (1, 3, 4) else 0)
    assert all("patch_nums [1, 2, 4] and is used at [1, 3, 4]" in note for note in notes)


def test_a_checkpoint_of_other_scales_is_refused_by_name(tmp_path):
    trainer = quiet(tmp_path)
    trainer.strategy.connect(lit_var())
    trainer.save_checkpoint(tmp_path / "var.ckpt")
    with pytest.raises(ValueError, match=r"patch_nums is \[1, 2, 4\] instead of \[1, 3, 4\]"):
        quiet(tmp_path).validate(
            lit_var(vqvae(patch_nums=(1, 3, 4))), datamodule=ToyImages(), ckpt_path=tmp_path / "var.ckpt"
        )
