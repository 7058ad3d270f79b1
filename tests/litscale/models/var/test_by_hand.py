"""Guidance, filters, mixtures and the use of codes in VAR, by hand."""

import math
import re
from dataclasses import astuple

import pytest
import torch

from litscale.models.var import VAR, VQVAE, Discriminator, Pruning
from litscale.models.var.blocks import BlockConfig, VARAttention, VARBlock
from litscale.models.var.discriminator import consistency_loss, random_shift
from litscale.models.var.generate import gumbel_max, mixture
from litscale.models.var.generation_options import VARGeneration, guided, keep_likely
from litscale.models.var.quantizer import Quantizer
from litscale.models.var.scales import check_patch_nums, phi_index, token_masks

REMOVED = float("-inf")


def log(*shares):
    return torch.tensor(shares).log()


def kept(logits):
    return [i for i, value in enumerate(logits.tolist()) if value > REMOVED]


def test_guidance_by_hand():
    both = torch.tensor([[[1.0, 2.0, -1.0]], [[0.5, 4.0, 2.0]]])
    assert guided(both, 1.5).tolist() == [[[1.75, -1.0, -5.5]]]
    assert guided(both, 0.0).tolist() == both[:1].tolist()


@pytest.mark.parametrize(
    ("top_k", "top_p", "wanted"),
    [
        (0, 0.0, [0, 1, 2, 3, 4]),
        (1, 0.0, [2]),
        (2, 0.0, [0, 2, 4]),  # a tie stays
        (4, 0.0, [0, 2, 3, 4]),
        (9, 0.0, [0, 1, 2, 3, 4]),
        (0, 0.3, [2]),
        (0, 0.5, [2, 4]),  # of equals the later one
        (0, 0.7, [0, 2, 4]),
        (0, 0.95, [0, 2, 3, 4]),
        (0, 1.0, [0, 1, 2, 3, 4]),
        (3, 0.6, [2, 4]),  # of what top_k left: 4/9, 2.5/9, 2.5/9
    ],
)
def test_filters_by_hand(top_k, top_p, wanted):
    logits = log(0.25, 0.02, 0.4, 0.08, 0.25)
    found = keep_likely(logits, top_k, top_p)
    assert kept(found) == wanted
    assert torch.equal(found[wanted], logits[wanted])


def test_filters_treat_each_row_by_itself():
    rows = torch.stack([log(0.7, 0.2, 0.1), log(0.1, 0.3, 0.6)])
    assert [kept(row) for row in keep_likely(rows, 0, 0.8)] == [[0, 1], [1, 2]]
    assert [kept(row) for row in keep_likely(rows, 1, 0.0)] == [[0], [2]]


def test_the_logits_that_tokens_are_drawn_from():
    raw = torch.tensor([[[1.0, 2.0, -1.0]], [[0.5, 4.0, 2.0]]])
    # at half of the scales the strength is 1.5: guided 1.75, -1, -5.5, then divided by 0.5
    assert VARGeneration(cfg=3.0, temperature=0.5).at(0).logits(raw, 0.5).tolist() == [[[3.5, -2.0, -11.0]]]
    assert VARGeneration(cfg=3.0, top_k=1).at(0).logits(raw, 0.5).tolist() == [[[1.75, REMOVED, REMOVED]]]
    assert VARGeneration(cfg=0.0, temperature=2.0).at(0).logits(raw[:1], 0.5).tolist() == [[[0.5, 1.0, -0.5]]]


def test_draws_add_the_noise():
    logits, noise = torch.tensor([[[1.0, 2.0, -1.0]]]), torch.tensor([[[2.5, 0.0, 4.0]]])
    assert gumbel_max(logits, None).tolist() == [[1]]
    assert gumbel_max(logits, noise).tolist() == [[0]]
    assert VARGeneration(greedy=True).noise(0, torch.arange(2), 1, 4, 5) is None
    assert VARGeneration().noise(0, torch.arange(2), 1, 4, 5).shape == (2, 4, 5)


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_mixtures_by_hand(ratio):
    logits, noise = [0.1, 0.3, -0.2], [0.0, 0.1, 0.15]
    tau = max(0.27 * (1 - 0.95 * ratio), 0.005)
    for added in (noise, None):
        parts = zip(logits, added or [0.0] * 3, strict=True)
        weights = [math.exp((value * (1 + ratio) + more) / tau) for value, more in parts]
        found = mixture(torch.tensor(logits), None if added is None else torch.tensor(added), ratio)
        assert found.tolist() == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"cfg": -1e-3}, "cfg"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 1.01}, "top_p"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_options_at_the_edge(options, name):
    VARGeneration(cfg=0.0, top_k=0, top_p=1.0, temperature=1e-6)
    with pytest.raises(ValueError, match=f"{name} must"):
        VARGeneration(**options)


def test_which_convolution_serves_a_scale():
    # ticks of four: 1/12, 13/36, 23/36, 11/12 of the way; of two: 1/4 and 3/4; of three: 1/6, 1/2, 5/6
    # (scales in the middle between two are left out: rounding decides, as recorded from the official code)
    assert [phi_index(k, 10, 4) for k in (0, 1, 3, 4, 5, 6, 8, 9)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [phi_index(k, 5, 2) for k in (0, 1, 3, 4)] == [0, 0, 1, 1]
    assert [phi_index(k, 6, 3) for k in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [phi_index(k, 3, 0) for k in range(3)] == [0, 1, 2]
    assert [phi_index(k, 3, 1) for k in range(3)] == [0, 0, 0]
    assert phi_index(0, 1, 4) == 0


def test_sides_at_the_edge():
    assert check_patch_nums([1]) == (1,)
    assert check_patch_nums([1, 2, 5], 5) == (1, 2, 5)
    for sides in ([0, 1], [2, 2], [3, 2], []):
        with pytest.raises(ValueError, match="patch_nums must be positive and increasing"):
            check_patch_nums(sides)


def test_a_token_is_known_where_half_of_its_pixels_are():
    known = torch.zeros(1, 4, 4, dtype=torch.bool)
    known[0, 0] = known[0, 1, :3] = True  # 7 of 16; of the quarters 4, 3, 0 and 0
    assert [mask.int().tolist() for mask in token_masks(known, (1, 2))] == [[[0]], [[1, 1, 0, 0]]]
    known[0, 1, 3] = True  # half of all
    assert token_masks(known, (1,))[0].item()


def test_the_use_of_codes_by_hand():
    quantizer = Quantizer((1, 3), 4, 2)
    tokens = [torch.tensor([[3], [0]]), torch.tensor([[0, 0, 1, 1, 1, 0, 0, 1, 1], [1] * 9])]
    counts = quantizer.count(tokens)
    assert counts.tolist() == [[1, 0, 0, 1], [4, 14, 0, 0]]
    quantizer.record_hits(counts)
    # the first row ever is copied, later ones weigh a tenth
    torch.testing.assert_close(quantizer.hits, torch.tensor([[1, 0, 0, 1], [0.4, 1.4, 0, 0]]))
    quantizer.record_hits(2 * counts)
    torch.testing.assert_close(quantizer.hits, torch.tensor([[1.1, 0, 0, 1.1], [1.16, 4.06, 0, 0]]))
    # even use by the last scale of 9 images: 9 * 9 / 4 = 20.25, of which 8 % are 1.62; of 6 images 1.08
    assert quantizer.usage(9).tolist() == [0.0, 25.0]
    assert quantizer.usage(6).tolist() == [50.0, 50.0]
    for _ in range(48):  # 100 rows in all
        quantizer.record_hits(counts)
    before = quantizer.hits.clone()
    quantizer.record_hits(torch.zeros_like(counts))
    torch.testing.assert_close(quantizer.hits, 0.99 * before)


def test_the_nearest_code_by_distance_and_by_angle():
    codes = torch.tensor([[1.0, 0.0], [10.0, 1.0], [0.0, 2.0]])
    f = torch.tensor([[2.0, 0.15], [0.2, 0.3], [9.0, 8.0]]).t().reshape(1, 2, 1, 3)
    for znorm, wanted in ((False, [0, 0, 1]), (True, [1, 2, 1])):
        quantizer = Quantizer((3,), 3, 2, quant_resi=0.0, znorm=znorm)
        quantizer.codebook.weight.data = codes
        query = f.flatten(2).transpose(1, 2)
        assert quantizer._nearest(query).tolist() == [wanted]


def test_the_losses_by_hand():
    """One scale: features 0 and 3, codes 1 and 5; the difference of both is 1 and 2."""
    quantizer = Quantizer((2,), 2, 1, quant_resi=0.0, beta=0.3)
    quantizer.codebook.weight.data = torch.tensor([[1.0], [5.0]])
    f = torch.tensor([0.0, 3.5, 3.5, 3.5]).reshape(1, 1, 2, 2)
    out = quantizer(f)
    assert out.tokens[0].tolist() == [[0, 1, 1, 1]]
    mean = (1.0 + 3 * 1.5**2) / 4
    assert (out.codebook_loss.item(), out.commitment_loss.item()) == pytest.approx((mean, mean))
    assert out.loss.item() == pytest.approx(1.3 * mean)
    assert out.counts.tolist() == [[1, 3]]
    assert out.f_hat.flatten().tolist() == [1, 5, 5, 5]


@torch.no_grad()
def test_dropout_and_drop_path_are_off_in_evaluation():
    torch.manual_seed(0)
    x, condition = torch.randn(3, 5, 8), torch.randn(3, 8)
    block = VARBlock(BlockConfig(8, 2, attn_dropout=0.5, dropout=0.5), drop_path=0.5)
    plain = VARBlock(BlockConfig(8, 2))
    plain.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(x, condition, None), plain.train()(x, condition, None))
    block.drop_path, block.mlp.drop.p, block.attn.drop.p = 0.0, 0.0, 0.0
    assert not torch.equal(block.train()(x, condition, None), plain(x, condition, None))  # of attention weights alone


@torch.no_grad()
@pytest.mark.parametrize("l2_norm", [False, True])
def test_attention_against_plain_sums(l2_norm):
    torch.manual_seed(0)
    attention = VARAttention(BlockConfig(6, 2, attn_l2_norm=l2_norm))
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x, mask = torch.randn(1, 4, 6), torch.ones(4, 4, dtype=torch.bool).tril()
    q = (x[0] @ attention.qkv.weight[:6].t() + attention.q_bias).view(4, 2, 3)
    k = (x[0] @ attention.qkv.weight[6:12].t()).view(4, 2, 3)
    v = (x[0] @ attention.qkv.weight[12:].t() + attention.v_bias).view(4, 2, 3)
    heads = []
    for head in range(2):
        rows, keys = q[:, head], k[:, head]
        if l2_norm:
            factor = min(100.0, math.exp(attention.log_scale.flatten()[head]))
            rows, keys = factor * rows / rows.norm(dim=1, keepdim=True), keys / keys.norm(dim=1, keepdim=True)
        else:
            rows = 0.25 * rows / 3**0.5
        scores = (rows @ keys.t()).masked_fill(~mask, REMOVED)
        heads.append(scores.softmax(1) @ v[:, head])
    expected = torch.cat(heads, dim=1) @ attention.proj.weight.t() + attention.proj.bias
    torch.testing.assert_close(attention(x, mask)[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_block_is_gated_scaled_and_shifted_by_its_class():
    torch.manual_seed(0)
    block = VARBlock(BlockConfig(8, 2, mlp_ratio=2.0, attn_l2_norm=False))
    x, modulation = torch.randn(2, 3, 8), torch.randn(2, 1, 6, 8)
    gates, scales, shifts = (modulation[:, :, i : i + 2] for i in (0, 2, 4))

    def normed(x, i):
        mean, deviation = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True).add(1e-6).sqrt()
        return (x - mean) / deviation * (1 + scales[:, :, i]) + shifts[:, :, i]

    after = x + gates[:, :, 0] * block.attn(normed(x, 0))
    after = after + gates[:, :, 1] * block.mlp(normed(after, 1))
    torch.testing.assert_close(block.run(x, modulation), after, atol=1e-5, rtol=1e-5)


def test_drop_path_skips_whole_images_and_scales_the_rest():
    torch.manual_seed(0)
    block = VARBlock(BlockConfig(8, 2, mlp_ratio=2.0, attn_l2_norm=False), drop_path=0.25).train()
    made = block._branch(torch.ones(8000, 2, 3))
    assert made.flatten(1).unique(dim=1).shape[1] == 1
    shares = made[:, 0, 0]
    assert sorted({round(value, 4) for value in shares.tolist()}) == [0.0, 1.3333]
    assert (shares > 0).float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_shifts_are_a_share_of_the_shorter_side():
    torch.manual_seed(0)
    images = torch.arange(8 * 24.0).view(1, 1, 8, 24).repeat(300, 1, 1, 1)
    moved = random_shift(images, 0.25)
    down, right = moved[:, 0, 3, 10] // 24 - 3, moved[:, 0, 3, 10] % 24 - 10
    for moves in (down, right):
        assert sorted(moves.unique().tolist()) == [-2, -1, 0, 1, 2]
    rows, columns = torch.arange(8)[:, None], torch.arange(24)
    for image, i, j in zip(moved[:, 0], down, right, strict=True):
        assert torch.equal(image, 24 * (rows + i).clamp(0, 7) + (columns + j).clamp(0, 23))
    assert len(set(zip(down.tolist(), right.tolist(), strict=True))) == 25
    assert random_shift(images, 0.01).ne(images).any()  # at least a pixel


def test_the_discriminator_layer_by_layer():
    convolutions = [part for part in Discriminator(2, 8).body if isinstance(part, torch.nn.Conv2d)]
    shapes = [(part.in_channels, part.out_channels, part.kernel_size[0], part.stride[0]) for part in convolutions]
    assert shapes == [(2, 8, 4, 2), (8, 16, 4, 2), (16, 32, 4, 2), (32, 64, 3, 1), (64, 1, 3, 1)]
    assert [part.bias is not None for part in convolutions] == [True, False, False, False, True]
    deep = [part.out_channels for part in Discriminator(1, 4, 5).body if isinstance(part, torch.nn.Conv2d)]
    assert deep == [4, 8, 16, 32, 32, 32, 1]
    assert Discriminator(2).body[0].out_channels == 64


def test_consistency_by_hand(monkeypatch):
    monkeypatch.setattr("litscale.models.var.discriminator.random_shift", lambda images, share: images + 8 * share)
    images = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(2, 1, 1, 2)
    logits = torch.tensor([0.5, 4.5]).view(2, 1, 1, 1)
    # of the moved images 2 * 2.5 and 2 * 5.5, beside 0.5 and 4.5
    assert consistency_loss(lambda x: 2 * x, images, logits) == pytest.approx((4.5**2 + 6.5**2) / 2)


def test_initial_weights_of_the_transformer():
    torch.manual_seed(0)
    model = VAR(
        VQVAE((1, 4), vocab=64, dim=8, channels=32, multipliers=(1, 1), blocks=1),
        num_classes=20,
        depth=3,
        width=48,
        heads=2,
    )
    std, cut = (1 / 48 / 3) ** 0.5, 0.02
    block = model.blocks[1]
    gates, others = block.modulation.weight[:96], block.modulation.weight[96:]
    for weight, wanted in (
        (model.word_emb.weight, std),
        (model.class_emb.weight, std),
        (model.pos_emb, std),
        (block.attn.qkv.weight, std),
        (block.mlp.fc1.weight, std),
        (block.attn.proj.weight, std / 6**0.5),
        (block.mlp.fc2.weight, std / 6**0.5),
        (others, 0.5 * std),
        (gates, 0.5 * std * 2e-5),
        (model.head.weight, cut * std),
        (model.head_modulation.weight, 0.5 * std),
    ):
        assert weight.std().item() == pytest.approx(wanted, rel=0.12)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_the_default_options():
    assert VARGeneration() == VARGeneration(cfg=1.5, top_k=0, top_p=0.0, temperature=1.0, greedy=False, smooth=False)


def test_options_by_scale_hold_from_the_first_scale_on_and_the_last_for_all_others():
    options = VARGeneration(cfg=2.0, top_k=(0, 5, 1), top_p=(0.5,), temperature=(1.0, 2.0), cfg_until=3)
    assert [astuple(options.at(k)) for k in range(5)] == [
        (2.0, 0, 0.5, 1.0),
        (2.0, 5, 0.5, 2.0),
        (2.0, 1, 0.5, 2.0),
        (0.0, 1, 0.5, 2.0),
        (0.0, 1, 0.5, 2.0),
    ]
    raw = torch.tensor([[[1.0, 2.0, -1.0]]])
    assert VARGeneration(cfg=0.0, top_k=(0, 1)).at(1).logits(raw, 0.5).tolist() == [[[REMOVED, 2.0, REMOVED]]]


def test_options_by_scale_are_checked_one_by_one():
    with pytest.raises(ValueError, match="top_k must not be negative, not -1; 0 draws among all tokens"):
        VARGeneration(top_k=(0, -1))
    with pytest.raises(ValueError, match=r"top_p must be in 0..1, not 1.5"):
        VARGeneration(top_p=(0.5, 1.5))
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        VARGeneration(temperature=(1.0, 0.0))
    with pytest.raises(ValueError, match="temperature must be one value, or one for each scale, not an empty list"):
        VARGeneration(temperature=())
    with pytest.raises(ValueError, match="top_k has 4 values, one for each scale, but there are 3 scales"):
        VARGeneration(top_k=(0, 0, 0, 1)).check(3)
    VARGeneration(top_k=(0, 0, 1), temperature=0.5).check(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cfg_until": 4}, "cfg_until is 4, but must be in 0..3, the number of scales, or null"),
        ({"prune": Pruning(3, (0.5,))}, "prune has ratios up to scale 3, but the last scale is 2: make from_scale"),
        ({"prune": Pruning(1, (1.0, 0.5, 0.25))}, "prune has ratios up to scale 3, but the last scale is 2"),
    ],
)
def test_scales_that_are_not_there_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VARGeneration(**options).check(3)


def test_the_last_scale_and_the_number_of_scales_are_there():
    VARGeneration(cfg_until=3).check(3)
    VARGeneration(prune=Pruning(2, (0.5,))).check(3)
    VARGeneration(prune=Pruning(1, (1.0, 0.5))).check(3)
