"""Parity with numbers recorded from the official VAR code, see tests/golden/var/README.md."""

import json

import pytest
import torch
from golden_var import CONFIG, GOLDEN, META, NAMES, SCALES, series, tensors, tokenizer, transformer
from torch.nn import functional as F  # noqa: N812

from litscale.models.var import VARGeneration, generate
from litscale.models.var.checkpoints import to_official
from litscale.models.var.generate import generate_scales
from litscale.models.var.generation_options import keep_likely
from litscale.models.var.quantizer import Quantizer
from litscale.models.var.scales import grow, phi_index, shrink

LABELS = torch.tensor(CONFIG["labels"])


def close(given, expected, atol=1e-4):
    torch.testing.assert_close(given, expected, atol=atol, rtol=0)


def all_close(given, expected, atol=1e-4):
    for ours, theirs in zip(given, expected, strict=True):
        close(ours, theirs, atol)


def all_equal(given, expected):
    assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))


def close_gradient(given, expected):
    close(given, expected, 1e-4 * float(expected.abs().max()))


@torch.no_grad()
def test_tokenizer_there_and_back():
    vqvae, io = tokenizer(), tensors("vqvae_io")
    close(vqvae.encoder(io["in.img"]), io["out.encoder"])
    f = vqvae.features(io["in.img"])
    close(f, io["out.f"])
    tokens = vqvae.encode(io["in.img"])
    all_equal(tokens, series(io, "out.idx"))
    f_hats = vqvae.quantizer.f_hats(tokens)
    all_close(f_hats, series(io, "out.f_hat"))
    close(vqvae.quantizer.teacher_input(tokens), io["out.var_input"])
    close(vqvae.quantizer.teacher_input(tokens[:-1]), io["out.var_input"])
    close(vqvae.decoder(vqvae.post_quant_conv(f_hats[-1])), io["out.decoder_unclamped"])
    close(vqvae.decode(f_hats[-1]), io["out.fhat_to_img"])
    close(vqvae.tokens_to_images(tokens), io["out.rec_last"])
    close(vqvae.tokens_to_images(tokens), io["out.idxBl_to_img_last"])
    all_close(vqvae.tokens_to_images(tokens, all_scales=True), series(io, "out.rec"))
    small = vqvae.quantizer.f_hats(tokens, full_size=False)
    all_close(small, series(io, "out.embed_to_fhat_same_scale_false"))


@torch.no_grad()
def test_tokenizer_with_other_scales():
    vqvae, io = tokenizer(), tensors("vqvae_io")
    tokens = vqvae.encode(io["in.img"], CONFIG["ovr"])
    all_equal(tokens, series(io, "out.override.idx", 3))
    all_close(vqvae.quantizer.f_hats(tokens, CONFIG["ovr"]), series(io, "out.override.f_hat", 3))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_tokenizer_training_pass(mode):
    vqvae, io = tokenizer().train(mode == "train"), tensors("vqvae_io")
    images = io["in.img"].clone().requires_grad_()
    out = vqvae(images)
    close(out.images.detach(), io[f"out.fwd_{mode}.rec"])
    torch.testing.assert_close(out.loss.detach()[None], io[f"out.fwd_{mode}.vq_loss"], rtol=1e-5, atol=0)
    close(vqvae.quantizer.usage(len(images)), io[f"out.fwd_{mode}.usages"], 1e-9)
    if mode == "eval":
        return
    loss = (out.images - io["in.img"]).square().mean() + out.loss
    torch.testing.assert_close(loss.detach()[None], io["out.fwd_train.loss"], rtol=1e-5, atol=0)
    loss.backward()
    close_gradient(images.grad, io["out.fwd_train.grad.img"])
    for parameter in vqvae.parameters():
        parameter.data = parameter.grad  # so that the export names the gradients
    gradients = to_official(vqvae)
    recorded = [key for key in io if key.startswith("out.fwd_train.grad.") and not key.endswith(".img")]
    assert len(recorded) == 11
    for key in recorded:
        close_gradient(gradients[key.removeprefix("out.fwd_train.grad.")], io[key])


def test_usage_average():
    vqvae, io = tokenizer().train(), tensors("vqvae_io")
    for step in ("after1", "after2"):
        vqvae.quantizer.record_hits(vqvae(io["in.img"]).counts)
        close(vqvae.quantizer.hits, io[f"out.ema.{step}"], 1e-5)
    assert vqvae.quantizer.hit_updates == META["record_hit_after_2_train_forwards"]


@torch.no_grad()
def test_quantiser_steps():
    quantizer, io = tokenizer().quantizer, tensors("quant_io")
    tokens = series(io, "steps.in.idx")
    f_hat = quantizer.start(2)
    for k in range(SCALES):
        f_hat = quantizer.accumulate(f_hat, tokens[k], k)
        close(f_hat, io[f"steps.out.f_hat.{k}"])
        following = quantizer.scale_input(f_hat, min(k + 1, SCALES - 1))
        close(following, io[f"steps.out.next.{k}"].flatten(2).transpose(1, 2))
    close(quantizer.teacher_input(tokens), io["steps.out.var_input"])


def test_interpolation():
    io = tensors("quant_io")
    probes = [key.split(".") for key in io if key.startswith("interp.") and ".in." not in key]
    assert len(probes) == 15
    for _, mode, sizes in probes:
        before, after = sizes.split("to")
        resize = shrink if mode == "area" else grow
        close(resize(io[f"interp.in.x{before}"], int(after)), io[f"interp.{mode}.{sizes}"], 1e-5)


@pytest.mark.parametrize("name", META["quant_variants"])
@torch.no_grad()
def test_quantiser_variants(name):
    arguments, io = META["quant_variants"][name], tensors("quant_io")
    quantizer = Quantizer(
        arguments["v_patch_nums"],
        arguments["vocab_size"],
        arguments["Cvae"],
        phis=arguments["share_quant_resi"],
        quant_resi=arguments["quant_resi"],
        beta=arguments["beta"],
        znorm=arguments["using_znorm"],
    )
    prefix = f"variants.{name}"
    kept = [value for key, value in sorted(io.items()) if key.startswith(f"{prefix}.sd.quant_resi")]
    for ours, theirs in zip([p for phi in quantizer.phis for p in (phi.bias, phi.weight)], kept, strict=True):
        ours.copy_(theirs)
    quantizer.codebook.weight.copy_(io[f"{prefix}.sd.embedding.weight"])
    f = io["variants.in.f"]
    tokens = quantizer.encode(f)
    all_equal(tokens, series(io, f"{prefix}.out.idx"))
    all_close(quantizer.f_hats(tokens), series(io, f"{prefix}.out.f_hat"))
    close(quantizer.teacher_input(tokens), io[f"{prefix}.out.var_input"])
    out = quantizer(f)
    torch.testing.assert_close(out.loss[None], io[f"{prefix}.out.vq_loss"], rtol=1e-5, atol=0)
    close(out.f_hat, io[f"{prefix}.out.forward_f_hat"])


def test_phi_table():
    table = json.loads((GOLDEN / "phi_table.json").read_text())
    for phis, rows in table["partially_shared"].items():
        for scales, indices in rows.items():
            count = int(scales.removeprefix("SN="))
            assert [phi_index(k, count, int(phis.removeprefix("K="))) for k in range(count)] == indices
    for scales, indices in table["non_shared"].items():
        count = int(scales.removeprefix("SN="))
        assert [phi_index(k, count, 0) for k in range(count)] == indices
    for name in ("tiny_patch_nums", "official_256", "official_512"):
        record = table[name]
        count = len(record["patch_nums"])
        assert [phi_index(k, count, record["K"]) for k in range(count)] == record["phi_index_per_scale"]


@pytest.mark.parametrize("name", NAMES)
def test_transformer_pass(name):
    model, io = transformer(name).train(), tensors(f"{name}_io")
    blocks = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: blocks.append((args, output)))
    inputs = io["in.x_BLCv_wo_first_l"]
    logits = model(io["in.label_B"], inputs)
    close(model.pos_emb + model.scale_emb(model.scale_of), io["out.lvl_pos"])
    close(model._classes(io["in.label_B"]), io["out.cond_BD"])
    close(blocks[0][0][0], io["out.block_in"])
    all_close([output for _, output in blocks], series(io, "out.block", len(model.blocks)))
    if "out.shared_ada_lin" in io:
        close(blocks[0][0][1], io["out.shared_ada_lin"])
    close(logits, io["out.logits"])
    close(logits, io["out.get_logits_of_last_block"])
    assert torch.equal(model.may_attend, io["out.attend"].bool())
    loss = F.cross_entropy(logits.flatten(0, 1), io["in.gt_BL"].flatten())
    torch.testing.assert_close(loss.detach()[None], io["out.ce_loss"], rtol=1e-5, atol=0)
    loss.backward()
    for parameter in model.parameters():
        parameter.data = parameter.grad  # so that the export names the gradients
    gradients = to_official(model)
    recorded = [key for key in io if key.startswith("out.grad.")]
    assert recorded
    for key in recorded:
        close_gradient(gradients[key.removeprefix("out.grad.")], io[key])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_transformer_without_class(name):
    model, io = transformer(name), tensors(f"{name}_io")
    close(model(None, io["in.x_BLCv_wo_first_l"]), io["out.logits_uncond"])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_guided_greedy_generation(name):
    model, io = transformer(name), tensors(f"{name}_io")
    read = []
    original = model.embed
    model.embed = lambda *args: read.append(original(*args)) or read[-1]
    taken = list(generate_scales(model, LABELS, VARGeneration(cfg=1.5, greedy=True), 0))
    key = "ar_cfg1.5"
    all_close([step.raw for step in taken], series(io, f"{key}.raw_logits"))
    all_close([step.logits for step in taken], series(io, f"{key}.guided_logits"))
    all_equal([step.tokens for step in taken], series(io, f"{key}.ids"))
    all_close([step.f_hat for step in taken], series(io, f"{key}.f_hat"))
    all_close(read, series(io, f"{key}.block_in"))
    for k in range(SCALES - 1):
        following = model.vqvae.quantizer.scale_input(taken[k].f_hat, k + 1)
        close(following, io[f"{key}.next_input.{k}"].flatten(2).transpose(1, 2))
    del model.embed
    drawn = generate(model, LABELS, VARGeneration(cfg=1.5, greedy=True))
    all_equal(drawn.tokens, series(io, f"{key}.ids"))
    close(drawn.images, io[f"{key}.img"])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_unguided_greedy_generation(name):
    model, io = transformer(name), tensors(f"{name}_io")
    taken = list(generate_scales(model, LABELS, VARGeneration(cfg=0, greedy=True), 0))
    all_close([step.logits for step in taken], series(io, "ar_cfg0.guided_logits"))
    drawn = generate(model, LABELS, VARGeneration(cfg=0, greedy=True))
    all_equal(drawn.tokens, series(io, "ar_cfg0.ids"))
    close(drawn.images, io["ar_cfg0.img"])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_filtered_generation_of_recorded_draws(name):
    model, io = transformer(name), tensors(f"{name}_io")
    tokens = series(io, "sample.ids_drawn")
    known = [torch.ones_like(entry, dtype=torch.bool) for entry in tokens]
    options = VARGeneration(cfg=1.5, top_k=10, top_p=0.9)
    unfiltered = list(generate_scales(model, LABELS, VARGeneration(cfg=1.5), 0, tokens=tokens, known=known))
    all_close([step.logits for step in unfiltered], series(io, "sample.logits_before_filter"))
    filtered = [step.logits for step in generate_scales(model, LABELS, options, 0, tokens=tokens, known=known)]
    all_close(filtered, series(io, "sample.logits_filtered"))
    all_equal([logits.isfinite() for logits in filtered], [keep.bool() for keep in series(io, "sample.keep")])
    drawn = generate(model, LABELS, VARGeneration(cfg=1.5, top_k=10, top_p=0.9), tokens=tokens, known=known)
    close(drawn.images, io["sample.img"])


@pytest.mark.parametrize("name", NAMES)
def test_filters(name):
    io = tensors(f"{name}_io")
    records = [key for key in io if ".out.keep." in key and key.startswith("filter")]
    assert len(records) >= 15
    for key in records:
        kind, setting = key.split(".out.keep.k")
        top_k, top_p = setting.split(".p")
        kept = keep_likely(io[f"{kind}.in.logits"], int(top_k), float(top_p)).isfinite()
        assert torch.equal(kept, io[key].bool()), key
