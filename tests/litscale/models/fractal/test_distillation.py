"""Distillation of fractal models: a teacher sees the same canvases, labels and masks, and teaches its distributions."""

import math

import pytest
import torch

from litscale.models.fractal import Fractal
from litscale.models.fractal.compatibility import check_teacher
from litscale.models.fractal.masking import Masking, SharedMasking
from litscale.models.fractal.terms import LossTerms

CPU = torch.device("cpu")
OPTIONS = {"codec": "rgb", "guiding": True, "num_classes": 3, "label_drop": 0.5}
SIZES = [(8, 4), (4, 2), (2, 2), (1, 1)]


def built(generators, widths=(16, 8, 8, 8), **options):
    """A network with randomness in all that training draws, apart from dropout."""
    torch.manual_seed(0)
    return Fractal(SIZES, generators, widths, [1, 1, 1, 1], [2, 2, 2, 2], **OPTIONS | options).train()


def batch():
    """Canvases and labels."""
    generator = torch.Generator().manual_seed(1)
    canvas = torch.randint(0, 256, (6, 3, 8, 4), dtype=torch.uint8, generator=generator)
    return canvas, torch.tensor([0, 1, 2, -1, 2, 0])


@pytest.mark.parametrize("generators", [["mar", "mar", "mar"], ["ar", "mar", "ar"], ["mar", "ar", "mar"]])
def test_a_model_does_not_diverge_from_itself(stir, generators):
    """With another draw of labels or masks it would, or the numbers of hidden patches would not fit."""
    model = stir(built(generators)).train()
    torch.manual_seed(3)
    output = model(*batch(), teacher=model)
    assert output.divergences.keys() == {"level_1", "level_2", "leaf"}
    assert all(value.abs() < 1e-6 for value in output.divergences.values())
    assert output.loss.abs() < 1e-6
    # what training without a teacher draws is the same as with one
    torch.manual_seed(3)
    alone = model(*batch())
    assert alone.level_losses == output.level_losses
    assert alone.mask_fractions == output.mask_fractions
    assert not alone.divergences


def test_the_loss_mixes_divergence_and_data(stir):
    teacher, student = stir(built(["mar", "ar", "mar"], (24, 8, 16, 8))).eval(), stir(built(["mar", "ar", "mar"]))
    outputs = {}
    for weight in (0.0, 0.25, 1.0):
        torch.manual_seed(3)
        outputs[weight] = student.train()(*batch(), teacher=teacher, data_weight=weight)
    output = outputs[0.25]
    data, told = sum(output.level_losses.values()), sum(output.divergences.values())
    assert output.loss.item() == pytest.approx((0.25 * data + 0.75 * told).item())
    assert outputs[0.0].loss.item() == pytest.approx(told.item())
    assert outputs[1.0].loss.item() == pytest.approx(data.item())
    assert told > 0.1
    output.loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert sum(parameter.grad is not None for parameter in student.parameters()) > 50


def test_the_divergence_by_hand():
    told = torch.tensor([[[1.0, 0.0]], [[0.0, math.log(4)]]])
    terms = LossTerms(teacher={"leaf": told})
    own = torch.zeros(2, 1, 2, requires_grad=True)
    nats = torch.full((2, 1), math.log(2))
    terms.add("leaf", nats, torch.ones(2), torch.arange(2), own)
    p = 1 / (1 + math.exp(-1))
    first = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    second = 0.2 * math.log(0.4) + 0.8 * math.log(1.6)
    assert terms.divergence["leaf"][:, 0].tolist() == pytest.approx([first, second])
    loss = terms.output(None).loss
    assert loss.item() == pytest.approx((first + second) / 2)
    loss.backward()
    # the gradient of a KL divergence is the difference of the probabilities
    assert own.grad.flatten().tolist() == pytest.approx([(0.5 - p) / 2, (p - 0.5) / 2, 0.15, -0.15])


def test_channels_weigh_in_the_divergence_as_in_the_loss(stir):
    teacher, student = stir(built(["mar"] * 3)), stir(built(["mar"] * 3, channel_weights=[4.0, 1.0, 0.0]), 0.2)
    torch.manual_seed(3)
    taught = student.train()(*batch(), teacher=teacher)
    student.channel_weights = torch.tensor([0.0, 0.0, 1.0])
    torch.manual_seed(3)
    other = student(*batch(), teacher=teacher)
    assert taught.divergences["leaf"] != other.divergences["leaf"]
    assert student.eval()(*batch(), teacher=teacher).divergences["leaf"] > 0  # in evaluation all weigh the same


def test_masks_are_drawn_once():
    masking = SharedMasking(Masking("training", 0.5, 1.0))
    drawn = [masking(3, 20, CPU), masking(5, 4, CPU)]
    masking.rewind()
    again = [masking(3, 20, CPU), masking(5, 4, CPU)]
    for (mask, weight, total), (same, alike, number) in zip(drawn, again, strict=True):
        assert torch.equal(mask, same)
        assert torch.equal(weight, alike)
        assert total == number == mask.sum()
    assert not torch.equal(masking(3, 20, CPU)[0], drawn[0][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 2, "guiding": False}, "num_classes 2 instead of 3, guiding False instead of True"),
        ({"codec": "gray"}, "codec gray instead of rgb"),
        ({"scan": "column_major"}, r"scan \['any', 'column_major', 'any'\] instead of \['any', 'row_major', 'any'\]"),
    ],
)
def test_a_teacher_of_other_distributions_is_refused(options, message):
    with pytest.raises(ValueError, match=f"the teacher has {message}$"):
        check_teacher(built(["mar", "ar", "mar"]), built(["mar", "ar", "mar"], **options))


def test_other_generators_and_bins_are_refused_and_another_size_is_none():
    with pytest.raises(ValueError, match=r"generators \['ar', 'ar', 'mar'\] instead of \['mar', 'ar', 'mar'\]"):
        check_teacher(built(["mar", "ar", "mar"]), built(["ar", "ar", "mar"]))
    rolls = [built(["mar"] * 3, codec="velocity", velocity_bins=bins) for bins in (4, 8)]
    with pytest.raises(ValueError, match="alphabet 9 instead of 5"):
        check_teacher(*rolls)
    check_teacher(built(["mar"] * 3), built(["mar"] * 3, (32, 16, 16, 8), positions="rope", root_conditions=3))
