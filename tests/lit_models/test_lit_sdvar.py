"""LitSDVAR in a trainer: comparison with the target alone, distillation, checkpoints and files, generation, errors."""

from dataclasses import replace
from functools import partial
from random import Random

import pytest
import torch
from lightning.pytorch import Callback
from sdvar_lit_toys import lit_sdvar, lit_var_files, network, speculative
from torch.utils.data import DataLoader
from var_toys import Outputs, ToyImages, lit_var, quiet, resumed, same, vqvae

from lit_models import Optimization
from lit_models.speculative.comparison import no_totals, rates
from lit_models.tokenizer.data_checks import token_metadata
from litscale.models.sdvar import KL, AdaptiveGamma, CollaborativeDecoding, DraftOnly, Speculative, TargetOnly, TopK
from litscale.models.var import VARGeneration, generate, to_official


class Comparisons(Callback):
    """Keeps what evaluation hands over."""

    def __init__(self):
        self.kept = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        """Keep it."""
        self.kept.append(outputs)

    on_test_batch_end = on_validation_batch_end


def request(labels=(0, 2), known=False):
    """A batch of ``predict``."""
    canvas = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    batch = {"canvas": canvas, "known": torch.full_like(canvas, known, dtype=torch.bool), "seed": 5}
    return batch | {"index": torch.arange(len(labels)), "label": torch.tensor(labels)}


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (Speculative, {}, "speculative (gamma 2, Coupled)"),
        (Speculative, {"gamma": AdaptiveGamma(low=2), "ragged": False}, "(gamma AdaptiveGamma, low 2, Coupled, ragged"),
        (CollaborativeDecoding, {"entry_num": 1, "mask": "none"}, "collaborative (entry_num 1, none)"),
        (TargetOnly, {}, "target only"),
        (DraftOnly, {}, "draft only"),
    ],
)
def test_classes_make_decoders(kind, arguments, words):
    module = lit_sdvar(decoder=partial(kind, **arguments))
    made = module.decoder
    assert isinstance(made, kind)
    assert words in str(made)
    if "only" in words:
        assert made.entry_num == (0 if kind is TargetOnly else 3)
    assert {name: getattr(made, name) for name in arguments} == arguments
    assert module.draft.vqvae is module.target.vqvae is made.vqvae


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_decodes_each_label_beside_the_target(tmp_path, stage):
    module, data, seen = (
        lit_sdvar(**speculative(acceptance=KL(0.05)), seed=7),
        ToyImages(6),
        Comparisons(),
    )
    (found,) = getattr(quiet(tmp_path, callbacks=[seen]), stage)(module, datamodule=data, verbose=False)
    assert [comparison.report.images for comparison in seen.kept] == [4, 2]
    whole = TargetOnly(module.target).decode(data.label, VARGeneration(cfg=0), seed=7)
    expected = module.codec.to_symbols(whole.images * 2 - 1)
    assert torch.equal(torch.cat([comparison.target_canvas for comparison in seen.kept]), expected)
    own = module.decoder
    made = [
        own.decode(data.label[rows], VARGeneration(cfg=0), seed=7, image_index=rows)
        for rows in torch.arange(6).split(4)
    ]
    canvas = torch.cat([module.codec.to_symbols(part.images * 2 - 1) for part in made])
    assert torch.equal(torch.cat([comparison.canvas for comparison in seen.kept]), canvas)
    agreement = torch.cat([comparison.agreement for comparison in seen.kept])
    tokens = [torch.cat([part.tokens[k] for part in made]) for k in range(3)]
    equal = torch.cat([a == b for a, b in zip(tokens, whole.tokens, strict=True)], 1)
    assert torch.equal(agreement, equal.double().mean(1))
    assert 0 < agreement.mean() < 1
    accepted, calls = (sum(getattr(part.report, name) for part in made) for name in ("accepted_scales", "target_calls"))
    prefix = "val" if stage == "validate" else "test"
    assert found[f"{prefix}/accepted_scales_per_call"] == pytest.approx(accepted / calls)


def test_coupled_decoding_differs_nowhere(tmp_path):
    seen = Comparisons()
    quiet(tmp_path, callbacks=[seen]).validate(lit_sdvar(), datamodule=ToyImages(4), verbose=False)
    (comparison,) = seen.kept
    assert comparison.agreement.tolist() == [1] * 4
    assert torch.equal(comparison.canvas, comparison.target_canvas)
    assert rates(comparison.totals())["token_agreement"] == 1
    assert comparison.totals().keys() == no_totals(3).keys()
    assert rates(no_totals(3)) == {}


def test_validation_in_fit_decodes_the_first_labels(tmp_path):
    seen = Comparisons()
    module = lit_sdvar(**speculative(), fit_images=5)
    trainer = quiet(tmp_path, max_epochs=1, callbacks=[seen])
    trainer.fit(module, datamodule=ToyImages(16))
    assert [None if comparison is None else comparison.report.images for comparison in seen.kept] == [4, 1, None, None]
    assert "val/accepted_scales_per_call" in trainer.callback_metrics


@pytest.mark.parametrize("until", [None, 0, 1, 2])
def test_the_loss_is_the_divergence_of_what_tokens_are_drawn_from(tmp_path, until):
    """Without guidance from a scale on, the draft learns what guidance does there: the target keeps it."""
    options = VARGeneration(cfg=1.5, temperature=(0.5, 0.8), top_k=(0, 0, 1), cfg_until=until)
    module, data, seen = lit_sdvar(generation=options, teacher_share=0.0), ToyImages(4), Outputs()
    tokens = module.vqvae.encode(data.canvas / 127.5 - 1)
    inputs, both = module.vqvae.quantizer.teacher_input(tokens), []
    with torch.no_grad():
        for model, last in ((module.target.eval(), 3), (module.draft.eval(), 3 if until is None else until)):
            given, free = model(data.label, inputs), model(None, inputs)
            strength = 1.5 * torch.tensor([0.0] + [0.5] * 4 + [1.0] * 16)[:, None]
            strength[sum((1, 4, 16)[:last]) :] = 0
            temperature = torch.tensor([0.5] + [0.8] * 20)[:, None]
            both.append((((1 + strength) * given - strength * free) / temperature).softmax(-1))
    p, q = both
    nats, overlap = (p * (p / q).log()).sum(-1), torch.minimum(p, q).sum(-1)
    quiet(tmp_path, max_steps=1, callbacks=[seen], limit_val_batches=0).fit(module, datamodule=data)
    assert seen.losses[0] == pytest.approx(nats.mean().item(), rel=1e-4)
    report = seen.reports[0]
    assert report["loss/scale_1"].item() == pytest.approx(nats[:, 1:5].mean().item(), rel=1e-4)
    assert report["overlap/scale_2"].item() == pytest.approx(overlap[:, 5:].mean().item(), rel=1e-4)
    assert report.keys() == {f"{name}/scale_{k}" for name in ("loss", "overlap") for k in range(3)}


def test_a_refiner_learns_from_the_target_on_late_scales(tmp_path):
    """The loss is the divergence at their tokens, which the target drew together with the scales before."""
    module, data, seen = lit_sdvar(teacher_share=1.0, scales=(1, 3)), ToyImages(4), Outputs()
    quiet(tmp_path, max_steps=1, callbacks=[seen], limit_val_batches=0).fit(module, data)
    by_scale = [seen.reports[0][f"loss/scale_{k}"].item() for k in range(3)]
    assert seen.losses == pytest.approx([(4 * by_scale[1] + 16 * by_scale[2]) / 20], rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_images_is_the_targets_own(tmp_path, share, monkeypatch):
    module, data, given = lit_sdvar(teacher_share=share), ToyImages(4), []
    monkeypatch.setattr(
        module,
        "_divergence",
        lambda labels, tokens: (
            given.append(tokens) or (_zero := module.draft.head.bias.sum() * 0 + torch.zeros(4, 21), _zero)
        ),
    )
    quiet(tmp_path, max_steps=1, limit_val_batches=0).fit(module, datamodule=data)
    own = module.vqvae.encode(data.canvas / 127.5 - 1)
    equal = torch.cat([a == b for a, b in zip(given[0], own, strict=True)], 1).all(1)
    assert equal.tolist() == [row >= 4 * share for row in range(4)]
    assert torch.equal(module.frequencies, module.vqvae.quantizer.count(own))


def test_the_target_teaches_with_all_of_its_guidance(tmp_path, monkeypatch):
    options = VARGeneration(cfg=4.0, cfg_until=0, top_k=(0, 1))
    module, data, given = lit_sdvar(teacher_share=1.0, generation=options), ToyImages(4), []
    whole = module._divergence
    monkeypatch.setattr(module, "_divergence", lambda labels, tokens: given.append(tokens) or whole(labels, tokens))
    monkeypatch.setattr("lit_models.lit_sdvar.host_random", lambda: Random(5))
    seed = Random(5).getrandbits(62)
    expected, unguided = (
        generate(module.target, data.label, each, seed).tokens for each in (replace(options, cfg_until=None), options)
    )
    quiet(tmp_path, max_steps=1, limit_val_batches=0).fit(module, datamodule=data)
    (made,) = given
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    assert not torch.equal(made[2], unguided[2])


def test_distillation_trains_the_draft_alone_and_raises_acceptance(tmp_path):
    torch.manual_seed(0)
    module = lit_sdvar(**speculative(gamma=2), optimization=Optimization(lr=1e-2), spread=0.5)
    data = ToyImages(64, batch_size=16)
    target = {name: value.clone() for name, value in module.target.state_dict().items()}
    before = quiet(tmp_path).validate(module, datamodule=data, verbose=False)[0]
    quiet(tmp_path, max_epochs=12, limit_val_batches=0).fit(module, datamodule=data)
    after = quiet(tmp_path).validate(module, datamodule=data, verbose=False)[0]
    assert after["val/divergence"] < 0.5 * before["val/divergence"]
    assert after["val/accepted_scales_per_call"] > before["val/accepted_scales_per_call"] + 0.05
    assert all(torch.equal(value, target[name]) for name, value in module.target.state_dict().items())


def test_files_of_lit_var_and_a_checkpoint_alone(tmp_path):
    paths = lit_var_files(tmp_path / "files")
    files = {f"{role}_checkpoint": path for role, path in paths.items()}
    other = vqvae()
    torch.nn.init.zeros_(other.quantizer.codebook.weight)
    module = lit_sdvar(other, **files)
    trainer = quiet(tmp_path, max_steps=2)
    trainer.fit(module, datamodule=ToyImages())
    kept = torch.load(paths["target"], weights_only=True)
    assert all(
        torch.equal(value, kept["state_dict"][f"network.{name}"]) for name, value in module.target.state_dict().items()
    )
    assert torch.equal(module.vqvae.quantizer.codebook.weight, vqvae().quantizer.codebook.weight)
    trainer.save_checkpoint(tmp_path / "pair.ckpt")
    expected = module.predict_step(request(), 0)["canvas"]
    again = lit_sdvar(other, **{name: str(tmp_path / "gone.ckpt") for name in files})
    loader = DataLoader([request()], batch_size=None)
    (found,) = quiet(tmp_path).predict(again, loader, ckpt_path=tmp_path / "pair.ckpt", weights_only=True)
    assert torch.equal(found["canvas"], expected)
    # the distilled draft is a LitVAR, and a draft for others
    alone = lit_var(other, depth=1)
    (drawn,) = quiet(tmp_path).predict(alone, loader, ckpt_path=tmp_path / "draft.ckpt", weights_only=True)
    assert torch.equal(alone.frequencies, module.frequencies)
    assert drawn["canvas"].shape == (2, 1, 8, 8)
    assert not torch.equal(
        module.draft.head.bias, torch.load(paths["draft"], weights_only=True)["state_dict"]["network.head.bias"]
    )
    for path in ("draft.ckpt", "pair.ckpt"):
        third = lit_sdvar(**files | {"draft_checkpoint": str(tmp_path / path)})
        third.load_files()
        assert torch.equal(third.draft.head.weight, module.draft.head.weight)
    both = lit_sdvar(**{name: str(tmp_path / "pair.ckpt") for name in files})
    both.load_files()
    assert torch.equal(both.target.head.weight, module.target.head.weight)


def test_official_files(tmp_path):
    module = lit_sdvar()
    paths = {f"{role}_checkpoint": str(tmp_path / f"{role}.pth") for role in ("draft", "target", "tokenizer")}
    for network_, path in zip((module.draft, module.target, module.vqvae), paths.values(), strict=True):
        torch.save(to_official(network_), path)
    torch.manual_seed(9)
    again = lit_sdvar(vqvae(), spread=0.9, **paths)
    again.load_files()
    for role in ("draft", "target"):
        same({role: getattr(again, role).state_dict()}, {role: getattr(module, role).state_dict()}, [role])


def test_resumed_distillation_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    makers = {role: network(role, num_classes=10) for role in ("draft", "target")}
    ends = resumed(tmp_path, lambda: lit_sdvar(**makers))
    same(*ends, ("state_dict", "optimizer_states", "lr_schedulers", "tokenizer"))


def test_generation_is_repeatable_and_framed():
    module = lit_sdvar(**speculative(gamma=AdaptiveGamma(), acceptance=TopK())).eval()
    label, frames = torch.tensor([1, 2, 0]), []
    first = module.generate(label, seed=3, frames=frames)
    assert first.dtype == torch.uint8
    assert torch.equal(module.generate(label, seed=3), first)
    assert not torch.equal(module.generate(label, seed=4), first)
    assert len(frames) == 3
    assert torch.equal(frames[-1][0], first)
    assert all(done.all() and picture.shape == first.shape for picture, done in frames)
    assert module.generate(batch_size=2, seed=0).shape == (2, 1, 8, 8)
    output = module.predict_step(request(), 0)
    assert output["settings"]["decoder"] == "speculative (gamma AdaptiveGamma, TopK)"
    assert (output["settings"]["cfg"], output["settings"]["seed"]) == (0.0, 5)


def test_bf16(tmp_path):
    trainer = quiet(tmp_path, max_epochs=1, precision="bf16-mixed")
    trainer.fit(lit_sdvar(), datamodule=ToyImages(8))
    assert trainer.callback_metrics["val/divergence"].isfinite()


def test_tokens_of_a_cache_serve_as_well_as_images(tmp_path):
    seen = [Outputs(), Outputs()]
    for cached, outputs in zip((False, True), seen, strict=True):
        module, data = lit_sdvar(), ToyImages(8)
        data.token_metadata, data.folder = token_metadata(module.vqvae), "cache"
        if cached:
            tokens = torch.cat(module.vqvae.encode(data.canvas / 127.5 - 1), 1).int()
            items = [{"tokens": row, "label": label} for row, label in zip(tokens, data.label, strict=True)]
            data.items = lambda items=items: items
        quiet(tmp_path, max_epochs=1, callbacks=[outputs]).fit(module, datamodule=data)
    assert seen[0].losses == seen[1].losses
    data.token_metadata = {**data.token_metadata, "tokenizer": "another"}
    with pytest.raises(
        ValueError, match=r"the token cache cache was written by another tokenizer \(.*write a new cache"
    ):
        quiet(tmp_path).validate(module, datamodule=data)


def test_networks_without_classes_ignore_labels(tmp_path):
    makers = {role: network(role, num_classes=0) for role in ("draft", "target")}
    module = lit_sdvar(**speculative(), **makers)
    quiet(tmp_path, max_steps=1).fit(module, datamodule=ToyImages(4))
    assert module.generate(torch.tensor([2]), seed=0).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (partial(CollaborativeDecoding, entry_num=4), r"entry_num must be in 0\.\.3, the number of scales, not 4"),
        (partial(CollaborativeDecoding, mask="all"), "unknown mask 'all'"),
        (partial(Speculative, gamma=0), "gamma must be at least 1"),
    ],
)
def test_bad_decoders(decoder, message):
    with pytest.raises(ValueError, match=message):
        lit_sdvar(decoder=decoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_share": 1.5}, r"teacher_share must be in 0\.\.1, not 1.5"),
        ({"generation": VARGeneration(greedy=True)}, "decoders need greedy and smooth to be false"),
        ({"generation": VARGeneration(top_k=(0, 0, 0, 1))}, "top_k has 4 values, one for each scale, but there are 3"),
        ({"generation": VARGeneration(cfg_until=4)}, r"cfg_until is 4, but must be in 0\.\.3, the number of scales"),
        ({"fit_images": 0}, "fit_images must be at least 1, not 0"),
        ({"draft": network("draft", num_classes=2)}, "the draft has 2 classes, the target 3"),
        (
            {"draft": lambda _: network("draft")(vqvae(patch_nums=(1, 4)))},
            r"different patch_nums: \(1, 4\) and \(1, 2, 4\)",
        ),
        ({"draft": lambda _: network("draft")(vqvae(vocab=32))}, "different vocabularies: 32 and 16 codes"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        lit_sdvar(**options)


def test_bad_files(tmp_path):
    paths = lit_var_files(tmp_path, {"draft": vqvae(), "target": vqvae(dim=8, quant_resi=0.5)})
    target = {"target_checkpoint": paths["target"]}
    with pytest.raises(FileNotFoundError, match=r"draft_checkpoint .*gone.ckpt: no such file"):
        lit_sdvar(**target, draft_checkpoint=str(tmp_path / "gone.ckpt")).load_files()
    with pytest.raises(
        ValueError, match=r"draft_checkpoint .* belongs to another network .*give draft the options of its training"
    ):
        lit_sdvar(**target, draft_checkpoint=paths["target"]).load_files()
    other = vqvae()
    torch.nn.init.normal_(other.quantizer.codebook.weight)
    other = lit_var_files(tmp_path / "other", {"draft": other, "target": other})
    with pytest.raises(
        ValueError, match=r"different tokenizers: draft_checkpoint .* was not trained with that of target_checkpoint"
    ):
        lit_sdvar(**target, draft_checkpoint=other["draft"]).load_files()
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"target_checkpoint .*list.pth holds no state dict"):
        lit_sdvar(target_checkpoint=str(tmp_path / "list.pth")).load_files()
    kept = torch.load(paths["target"], weights_only=True)
    kept["tokenizer"]["state_dict"]["quantizer.codebook.weight"][0] += 1
    torch.save(kept, tmp_path / "damaged.ckpt")
    with pytest.raises(ValueError, match=r"the tokenizer in target_checkpoint .*damaged.ckpt is damaged"):
        lit_sdvar(target_checkpoint=str(tmp_path / "damaged.ckpt")).load_files()
    with pytest.raises(ValueError, match="the checkpoint is not one of LitSDVAR: give checkpoints of LitVAR as draft_"):
        quiet(tmp_path).validate(lit_sdvar(), datamodule=ToyImages(), ckpt_path=paths["target"], weights_only=True)


def test_bad_data_and_requests(tmp_path):
    data = ToyImages(4)
    data.num_classes = 4
    with pytest.raises(ValueError, match="the data has 4 classes, the network 3: set the network's num_classes to 4"):
        quiet(tmp_path).validate(lit_sdvar(), datamodule=data)
    module = lit_sdvar(**speculative())
    with pytest.raises(ValueError, match=r"labels must be in -1\.\.2, got 0\.\.3"):
        module.generate(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="keep no known cells: inpaint with LitVAR"):
        module.predict_step(request(known=True), 0)
