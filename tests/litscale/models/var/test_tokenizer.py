"""The multi-scale tokenizer where no numbers are recorded: training, dropout of scales, dead codes, bad input."""

import pytest
import torch
from golden_var import tensors, tokenizer
from var_toys import quantizer

from litscale.models.var import VQVAE
from litscale.models.var.scales import token_masks


def small(**options):
    torch.manual_seed(0)
    return VQVAE(**{"patch_nums": (1, 2, 4), "vocab": 16, "dim": 8, "channels": 32, "multipliers": (1, 1)} | options)


@torch.no_grad()
def test_accumulation_changes_nothing_in_place():
    made = quantizer()
    f_hat = made.start(2)
    given = f_hat.clone()
    added = made.accumulate(f_hat, torch.zeros(2, 4, dtype=torch.long), 1)
    assert torch.equal(f_hat, given)
    assert not torch.equal(added, f_hat)


def test_gradient_passes_straight_to_the_features():
    f = torch.randn(2, 4, 4, 4, requires_grad=True)
    weights = torch.randn(2, 4, 4, 4)
    (quantizer()(f).f_hat * weights).sum().backward()
    assert torch.equal(f.grad, weights)


def test_codebook_and_commitment_terms_pull_one_side_each():
    made, f = quantizer(beta=0.5), torch.randn(2, 4, 4, 4, requires_grad=True)
    out = made(f)
    sides = [f, made.codebook.weight]
    for loss, moved in ((out.codebook_loss, 1), (out.commitment_loss, 0)):
        gradients = torch.autograd.grad(loss, sides, retain_graph=True, allow_unused=True)
        assert gradients[1 - moved] is None
        assert gradients[moved].abs().max() > 0
    torch.testing.assert_close(out.loss, out.codebook_loss + 0.5 * out.commitment_loss)


def test_checkpointing_changes_no_gradient_and_runs_blocks_again():
    gradients, passes = [], []
    for grad_checkpointing in (False, True):
        model, seen = small(grad_checkpointing=grad_checkpointing, dropout=0.5).train(), []
        model.encoder.mid.attn_1.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        torch.manual_seed(0)
        out = model(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1)
        loss = out.images.square().mean() + out.loss
        torch.autograd.grad(
            loss, model.decoder.conv_out.weight, retain_graph=True
        )  # as the adversarial loss's weight does
        loss.backward()
        blocks = [*model.encoder.parameters(), *model.decoder.parameters()]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in blocks]))
        passes.append(len(seen))
    assert passes == [1, 2]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_dropped_scales_contribute_nothing():
    made, f = quantizer(scale_dropout=1.0).train(), torch.randn(64, 4, 4, 4)
    out = made(f)
    sums = made.f_hats(out.tokens)
    kept = torch.stack([torch.isclose(out.f_hat, total, atol=1e-5).flatten(1).all(1) for total in sums])  # [S, B]
    assert torch.equal(kept.sum(0), torch.ones(64, dtype=torch.long))
    assert kept.any(1).all()
    squares = torch.stack([(total - f).square().mean((1, 2, 3)) for total in sums])
    used = kept.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(out.codebook_loss, (squares * used).mean())
    torch.testing.assert_close(out.commitment_loss, (squares * used).mean())
    made.eval()
    torch.testing.assert_close(made(f).f_hat, sums[-1])


def test_half_of_the_images_lose_scales():
    made, f = quantizer(scale_dropout=0.5).train(), torch.randn(400, 4, 4, 4)
    out = made(f)
    whole = torch.isclose(out.f_hat, made.f_hats(out.tokens)[-1], atol=1e-5).flatten(1).all(1).float().mean()
    assert 0.57 < whole < 0.77  # one half, and a third of the other half


def test_counts_of_two_processes_add_up():
    made, f = quantizer(), torch.randn(6, 4, 4, 4)
    whole, halves = made(f), [made(half) for half in f.chunk(2)]
    assert torch.equal(whole.counts, halves[0].counts + halves[1].counts)
    assert whole.counts.sum(1).tolist() == [6, 24, 96]
    made.record_hits(whole.counts)
    torch.testing.assert_close(made.hits[0], whole.counts[0].float())
    torch.testing.assert_close(made.hits[1:], 0.1 * whole.counts[1:])
    used = (made.hits >= 0.08 * 6 * 16 / 16).float().mean(1) * 100
    torch.testing.assert_close(made.usage(6).float(), used)


def test_the_average_continues_after_a_restart_of_the_run():
    made, counts = quantizer(), torch.randint(9, (3, 16))
    for _ in range(34):  # 102 rows, beyond the warm-up
        made.record_hits(counts)
    again = quantizer()
    again.load_state_dict(made.state_dict())
    again.record_hits(3 * counts)
    torch.testing.assert_close(again.hits, 0.99 * made.hits + 0.01 * 3 * counts)


def test_dead_codes_are_replaced():
    made, f = quantizer(), torch.randn(2, 4, 4, 4)
    dead = made(f).counts.sum(0) == 0
    before = made.codebook.weight.detach().clone()
    vectors = made(f).queries[2][0]  # 16 codes, 16 places
    made.restart(dead, vectors)
    assert dead.any()
    assert torch.equal(made.codebook.weight[dead], vectors[dead])
    assert torch.equal(made.codebook.weight[~dead], before[~dead])
    assert made(f).counts[2, dead].sum() > 0
    with pytest.raises(ValueError, match=r"16 codes need vectors of shape \[16, 4\], not \[2, 4\]"):
        made.restart(dead, torch.zeros(2, 4))


@pytest.mark.parametrize("patch_nums", [(1, 4), (1, 2, 4), (1, 2, 3, 4)])
def test_every_trainable_parameter_gets_a_gradient(patch_nums):
    model = small(patch_nums=patch_nums, scale_dropout=0.5)
    out = model(torch.rand(2, 3, 8, 8) * 2 - 1)
    (out.images.square().mean() + out.loss).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert sum(phi.weight.requires_grad for phi in model.quantizer.phis) == len(patch_nums)


def test_autocast_keeps_the_quantiser_in_full_precision():
    vqvae, io = tokenizer().train(), tensors("vqvae_io")
    exact = vqvae(io["in.img"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = vqvae(io["in.img"])
        assert rough.f_hat.dtype == torch.float32
        again = vqvae.quantizer(io["out.f"])
    assert torch.equal(torch.cat(again.tokens, 1), torch.cat(exact.tokens, 1))
    torch.testing.assert_close(rough.loss, exact.loss, rtol=0.03, atol=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        images = vqvae.decode(io["out.f_hat.3"])
    assert (images.float() - io["out.rec_last"]).abs().mean() < 0.02


def test_known_pixels_become_known_tokens():
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :, :4] = True
    masks = token_masks(known, (1, 2, 4))
    assert [mask.tolist() for mask in masks[:2]] == [[[True]], [[True, False, True, False]]]
    assert torch.equal(masks[2].view(4, 4), known[0, ::2, ::2])


def test_images_that_do_not_fit():
    model = small()
    assert model.image_size == 8
    with pytest.raises(ValueError, match=r"images are \[3, 12, 12\], but the tokenizer takes \[3, 8, 8\]: in_channels"):
        model(torch.zeros(1, 3, 12, 12))
    with pytest.raises(ValueError, match=r"images are \[1, 8, 8\]"):
        model.encode(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("patch_nums", [(1, 2, 2, 4), (2, 1), (0, 1), ()])
def test_patch_nums_that_do_not_increase(patch_nums):
    with pytest.raises(ValueError, match=r"patch_nums must be positive and increasing, not \["):
        small(patch_nums=patch_nums)


def test_patch_nums_that_do_not_end_at_the_latent_size():
    with pytest.raises(ValueError, match=r"patch_nums must end at the latent size 4, not at 3: \[1, 3\]"):
        small().encode(torch.zeros(1, 3, 8, 8), (1, 3))


def test_scale_dropout_out_of_range():
    with pytest.raises(ValueError, match=r"scale_dropout must be in 0..1, not 1.5"):
        small(scale_dropout=1.5)
