"""What the parts of a fractal model compute, by hand: guidance, masks, sums and dropout."""

import math
from statistics import NormalDist

import pytest
import torch

from litscale.models.fractal import Fractal, attention_report
from litscale.models.fractal.canvas import neighbours, patchify, scan_order, unpatchify
from litscale.models.fractal.drawing import Drawing
from litscale.models.fractal.generation_options import Generation
from litscale.models.fractal.generation_report import GenerationReport
from litscale.models.fractal.guidance import final_logits, guided, scheduled
from litscale.models.fractal.head import CategoricalHead
from litscale.models.fractal.masking import (
    Masking,
    generation_order,
    generation_queue,
    masking_schedule,
    training_counts,
)
from litscale.models.fractal.terms import LossTerms
from litscale.models.keyed import gumbel, numbers
from litscale.models.layers.blocks import StackConfig

CPU = torch.device("cpu")


def test_cutting_and_scanning_by_hand():
    canvas = torch.arange(2 * 24).reshape(1, 2, 4, 6)
    patches = patchify(canvas, (2, 3))
    assert patches[0, :, 0].tolist() == [
        [[0, 1, 2], [6, 7, 8]],
        [[3, 4, 5], [9, 10, 11]],
        [[12, 13, 14], [18, 19, 20]],
        [[15, 16, 17], [21, 22, 23]],
    ]
    assert patches[0, 1, 1].tolist() == [[27, 28, 29], [33, 34, 35]]
    wide = patchify(canvas, (2, 2))
    assert wide[0, 4, 0].tolist() == [[14, 15], [20, 21]]
    assert torch.equal(unpatchify(wide, (2, 3)), canvas)
    assert scan_order((2, 3), "row_major").tolist() == [0, 1, 2, 3, 4, 5]
    assert scan_order((2, 3), "column_major").tolist() == [0, 3, 1, 4, 2, 5]


def test_neighbours_by_hand():
    states = torch.arange(1.0, 7)[None, :, None]  # 1 2 3 above 4 5 6
    middle_top_right_bottom_left = neighbours(states, (2, 3))[0, :, :, 0].tolist()
    assert middle_top_right_bottom_left == [
        [1, 0, 2, 4, 0],
        [2, 0, 3, 5, 1],
        [3, 0, 0, 6, 2],
        [4, 1, 5, 0, 0],
        [5, 2, 6, 0, 4],
        [6, 3, 0, 0, 5],
    ]


def test_guidance_by_hand():
    p, q = [0.6, 0.32, 0.05, 0.03], [0.2, 0.3, 0.499, 0.001]
    conditional, unconditional = torch.tensor(p).log(), torch.tensor(q).log()
    free = [3 * math.log(a) - 2 * math.log(b) for a, b in zip(p, q, strict=True)]
    assert guided(conditional, unconditional, 3.0, 0.0).tolist() == pytest.approx(free, abs=1e-5)
    # the last symbol is rare, and less so under the condition: guidance would push it up, and now does as for the top
    limited = math.log(0.03 / 0.6 * 0.499)
    wanted = [*free[:3], limited + 3 * (math.log(0.03) - limited)]
    for threshold in (0.04, 0.1):
        found = guided(conditional, unconditional, 3.0, threshold)
        assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0, 0.1), conditional)
    # every row by itself, whatever the level of its logits
    rows = torch.stack([conditional, conditional.flip(0) + 7, unconditional, conditional])
    others = torch.stack([unconditional, unconditional.flip(0) - 5, conditional, unconditional + 3])
    found = guided(rows, others, 3.0, 0.04)
    torch.testing.assert_close(
        found, torch.stack([guided(*pair, 3.0, 0.04) for pair in zip(rows, others, strict=True)])
    )


def test_guidance_rises_over_the_steps():
    assert [scheduled(3.0, "linear", progress) for progress in (0.0, 0.25, 1.0)] == [1.0, 1.5, 3.0]
    assert [scheduled(3.0, "constant", progress) for progress in (0.0, 0.25, 1.0)] == [3.0, 3.0, 3.0]


def test_what_is_drawn_from_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    squares = [0.25, 0.09, 0.04]  # half the temperature squares the probabilities
    shares = final_logits(logits, 0.5, None, 0.0, 0.0).softmax(-1)
    assert shares[0].tolist() == pytest.approx([x / sum(squares) for x in squares])
    # the unconditional row comes second, and is divided by the temperature too
    both = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]).log()
    odds = [0.25**2 / 0.36, 0.09**2 / 0.09, 0.04**2 / 0.01]
    guided_shares = final_logits(both, 0.5, 2.0, 0.0, 0.0).softmax(-1)
    assert guided_shares[0].tolist() == pytest.approx([x / sum(odds) for x in odds], abs=1e-5)
    # a scale for each row, and half precision is left
    rows = torch.cat([both[:1].expand(2, -1), both[1:].expand(2, -1)]).bfloat16()
    found = final_logits(rows, 0.5, torch.tensor([2.0, 1.0]), 0.0, 0.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.softmax(-1), torch.cat([guided_shares, shares]), atol=0.01, rtol=0)
    # what is less probable than a share of the likeliest is removed, after temperature and guidance
    assert (final_logits(logits, 1.0, None, 0.0, 0.5).softmax(-1)[0] * 8).tolist() == pytest.approx([5, 3, 0])
    assert final_logits(logits, 0.5, None, 0.0, 0.5).softmax(-1)[0].tolist() == [1, 0, 0]  # 0.09 / 0.25 is below
    assert final_logits(both, 0.5, 2.0, 0.0, 0.7).softmax(-1)[0].tolist() == pytest.approx(
        [x / (odds[0] + odds[2]) for x in (odds[0], 0, odds[2])], abs=1e-5
    )
    # noise is added to the logits of several channels of several cells as well
    grid = rows.float().unflatten(0, (2, 2))[:, :, None, None].expand(-1, -1, 5, 2, -1).flatten(0, 1)
    spread = final_logits(grid, 0.5, torch.tensor([2.0, 1.0]), 0.0, 0.0)
    torch.testing.assert_close(spread, found[:, None, None].expand(2, 5, 2, 3))


@pytest.mark.parametrize(("mean", "std"), [(1.0, 0.25), (0.4, 0.2), (0.7, 1.0), (-0.2, 0.5)])
def test_quantiles_of_the_share_of_hidden_patches(mean, std):
    torch.manual_seed(0)
    drawn = torch.tensor(training_counts(200_000, 10_000, mean, std)).double() / 10_000
    normal = NormalDist(mean, std)
    low, high = normal.cdf(0), normal.cdf(1)
    shares = [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98]
    wanted = [normal.inv_cdf(low + (high - low) * share) for share in shares]
    assert drawn.quantile(torch.tensor(shares).double()).tolist() == pytest.approx(wanted, abs=5e-3)


def test_the_number_of_hidden_patches_is_rounded_up():
    torch.manual_seed(0)
    for mean, patches, count in ((0.5, 5, 3), (0.42, 10, 5), (0.62, 10, 7), (0.0, 8, 1), (1.0, 7, 7)):
        mask, weight, total = Masking("training", mean, 1e-3)(50, patches, CPU)
        assert mask.sum(1).tolist() == [count] * 50
        assert total == 50 * count
        assert weight.tolist() == [1.0] * 50


def test_only_the_first_masked_level_of_a_pass_is_stratified():
    torch.manual_seed(0)
    masking = Masking("likelihood", stratum=(2, 4))
    mask, weight, total = masking(300, 4, CPU)
    assert mask.sum(1).tolist() == [3] * 300
    assert total == 900
    assert weight.tolist() == pytest.approx([4 / 3] * 300)
    mask, weight, _ = masking(4000, 4, CPU)
    counts = mask.sum(1)
    assert (counts.bincount(minlength=5)[1:] / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    torch.testing.assert_close(weight, 4 / counts)


def test_each_pass_of_a_likelihood_draws_its_own_stratum():
    torch.manual_seed(0)
    model = Fractal([(4, 4), (1, 1)], ["mar"], [8, 8], [1, 1], [2, 2], codec="binary").eval()
    canvas, counts = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), []
    model.levels[0].generator.register_forward_hook(
        lambda module, args, kwargs, output: counts.append(kwargs["mask"].sum(1)), with_kwargs=True
    )
    for _ in range(2):
        model.nll(canvas, passes=8)
    # 16 patches over 8 passes: pass i hides 2 i + 1 or 2 i + 2, in every call again
    wanted = torch.arange(8).repeat(2)[:, None].expand(16, 3)
    assert torch.equal((torch.stack(counts) - 1) // 2, wanted)


def test_the_schedules_by_hand():
    # 10 cos(pi/8) = 9.2, 10 cos(pi/4) = 7.1, 10 cos(3 pi/8) = 3.8; 3 cos(pi/6) = 2.6, 3 cos(pi/3) = 1.5
    assert masking_schedule([10, 3], 4).tolist() == [[10, 3], [9, 2], [7, 1], [3, 0], [0, 0]]
    assert masking_schedule([5, 0, 1], 2).tolist() == [[5, 0, 1], [3, 0, 0], [0, 0, 0]]
    assert masking_schedule([64], 3).tolist() == [[64], [55], [32], [0]]
    assert masking_schedule([0, 0], 4).tolist() == [[0, 0]]
    assert masking_schedule([], 4).shape == (1, 0)
    assert masking_schedule([10, 3], 4, "linear").tolist() == [[10, 3], [7, 2], [5, 1], [2, 0], [0, 0]]
    # in floating point 49 * (1 - 48 / 49) is below 1, and 10 * (1 - 4 / 5) below 2
    assert masking_schedule([10], 5, "linear")[:, 0].tolist() == [10, 8, 6, 4, 2, 0]
    assert masking_schedule([49], 49, "linear")[:, 0].tolist() == list(range(49, -1, -1))
    assert masking_schedule([7, 0], 2, "linear").tolist() == [[7, 0], [3, 0], [0, 0]]


def test_the_order_of_patches_by_hand():
    unknown = torch.tensor([[True, True, False, True, True], [True, False, False, True, True]])
    partial = torch.tensor([[False, False, False, True, False], [True, False, False, False, True]])
    order = torch.tensor([[5, 1, 9, 2, 3], [7, 1, 3, 2, 2**60 - 1]])
    # the lowest comes first, after those that are partly known; known ones come last
    assert generation_queue(unknown, partial, order).tolist() == [[3, 1, 4, 0, 2], [0, 4, 3, 1, 2]]
    scan = torch.tensor([2, 0, 1])
    assert generation_order("raster", scan, torch.zeros(2, 3, dtype=torch.long)).tolist() == [[1, 2, 0]] * 2
    keys = torch.tensor([[-1, 5, 2**62 + 3]])
    assert generation_order("random", scan, keys).tolist() == [[2**60 - 1, 5, 3]]


def test_sums_over_levels_by_hand():
    terms = LossTerms()
    rows = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]])
    terms.add("leaf", rows, torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1, 0, 1]))
    terms.add("level_1", torch.tensor([[13.0], [17.0]]), torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    # canvas 0: 2 * 8 + 13; canvas 1: 3 + 0.5 * 18 + 3 * 17
    assert terms.nats_per_canvas(2).tolist() == [29.0, 63.0]
    assert terms.nats_per_canvas(3).tolist() == [29.0, 63.0, 0.0]
    output = terms.output(None)
    assert output.level_losses["leaf"].item() == pytest.approx(29 / 6)
    assert output.loss.item() == pytest.approx(29 / 6 + 15)
    del terms.nats["level_1"]
    weighed = terms.output(torch.tensor([3.0, 1.0])).loss.item()
    assert weighed == pytest.approx((3 * 1 + 2 + 3 * 3 + 5 + 3 * 7 + 11) / 3 / 4)


@torch.no_grad()
def test_dropout_is_off_in_evaluation(stir):
    canvas = torch.randint(0, 3, (3, 1, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = []
    for dropout in (0.0, 0.5, 0.5):
        torch.manual_seed(0)
        options = {"attn_dropout": dropout, "proj_dropout": dropout, "velocity_bins": 1}
        model = Fractal([(4, 6), (2, 3), (1, 1)], ["ar", "ar"], [16, 8, 8], [2, 1, 1], [2, 2, 2], **options)
        scores.append(stir(model, 0.5).train().nll(canvas))
        assert model.training
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[1], scores[2])


@torch.no_grad()
def test_where_even_attention_looks():
    """With queries of zero every head looks evenly at all it may see: MAR's at all tokens, AR's at those before."""
    model = Fractal([(2, 6), (2, 2), (1, 1)], ["mar", "ar"], [8, 8, 8], [2, 1, 1], [2, 2, 2], codec="binary")
    for level in model.levels:
        for block in level.generator.blocks:
            for parameter in block.attn.qkv.parameters():
                parameter.zero_()
    report = attention_report(model, torch.zeros(2, 1, 2, 6, dtype=torch.uint8))
    # three patches in a row behind one condition; the middle one is 1 from both others
    top = report["level_0"]
    torch.testing.assert_close(top.entropy, torch.full((2, 2), math.log(4)))
    torch.testing.assert_close(top.reach, torch.full((2, 2), (3 / 3 + 2 / 3 + 3 / 3) / 3))
    # the neighbours' five conditions, then three of the four cells of a square: 0, 1 to the right, 1 below
    below = report["level_1"]
    wanted = sum(math.log(seen) for seen in range(1, 9)) / 8
    torch.testing.assert_close(below.entropy, torch.full((1, 2), wanted))
    distances = [0.0, 1 / 2, (1 + math.sqrt(2)) / 3]
    torch.testing.assert_close(below.reach, torch.full((1, 2), sum(distances) / 3))


def test_the_leaf_is_not_rounded_under_autocast():
    """Rounding makes its weights drift in training, so that averages of the weights are of no use."""
    torch.manual_seed(0)
    head, conditions = CategoricalHead(StackConfig(8, 1, 2), 4, channels=2, alphabet=5), torch.randn(6, 1, 4)
    torch.nn.init.normal_(head.codebook)
    symbols = torch.zeros(6, 2, dtype=torch.long)
    drawing = Drawing(None, Generation(order="confidence"), GenerationReport())
    noise = gumbel(numbers(torch.arange(6), 2), 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = head.logits(symbols, conditions)
        drawn, log_prob = drawing.draw_cells(head, conditions, None, noise)
    torch.testing.assert_close(logits, head.logits(symbols, conditions), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(log_prob, -head(drawn, conditions)[0].sum(1), atol=1e-5, rtol=1e-5)
