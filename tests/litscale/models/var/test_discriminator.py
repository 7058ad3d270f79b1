"""The patch discriminator and its losses."""

import pytest
import torch

from litscale.models.var import Discriminator
from litscale.models.var.discriminator import adaptive_weight, consistency_loss, hinge_loss, random_shift


def test_patches_see_their_surroundings_only():
    torch.manual_seed(0)
    model = Discriminator(3, 8, 2).eval()
    # norms see the whole image; without them a patch sees 22 pixels
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[..., :8, :8] += 1
    before, after = model(images), model(changed)
    assert before.shape == (1, 1, 16, 16)
    moved = (before != after)[0, 0]
    assert moved[:2, :2].all()
    assert not moved[8:].any()
    assert not moved[:, 8:].any()


def test_verdicts_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    model, images = Discriminator(1, 8, 2), torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def test_frozen_gives_gradients_to_images_alone():
    model, images = Discriminator(1, 8, 2), torch.randn(2, 1, 8, 8, requires_grad=True)
    torch.testing.assert_close(model.frozen(images), model(images))
    model.frozen(images).sum().backward()
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hinge_loss_stops_beyond_its_margins():
    assert hinge_loss(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])) == pytest.approx(0.5 * (0.5 + 1.0))
    assert hinge_loss(torch.tensor([1.0]), torch.tensor([-1.0])) == 0


def test_adaptive_weight_balances_gradients():
    strong, weak = torch.full((4,), 6.0), torch.full((4,), 2.0)
    assert adaptive_weight(strong, weak) == pytest.approx(3.0, rel=1e-3)
    assert adaptive_weight(strong, torch.zeros(4)) == 1e4


def test_shifts_move_images_whole():
    torch.manual_seed(0)
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(50, 2, 1, 1)
    moved = random_shift(images, 0.125)
    inner = moved[:, :, 2:6, 2:6] - images[:, :, 2:6, 2:6]
    assert (inner == inner[:, :, :1, :1]).all()
    assert set(inner[:, 0, 0, 0].tolist()) == {a + b for a in (-8, 0, 8) for b in (-1, 0, 1)}
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_consistency_is_zero_for_a_constant_verdict():
    images = torch.randn(4, 1, 8, 8)
    assert consistency_loss(lambda x: x.new_ones(len(x), 1, 2, 2), images, torch.ones(4, 1, 2, 2)) == 0
    assert consistency_loss(lambda x: x[:, :, :2, :2], images, images[:, :, :2, :2]) > 0


def test_bad_sizes():
    with pytest.raises(ValueError, match=r"shrink images by 16, but they have \[8, 8\] pixels: give it fewer layers"):
        Discriminator(1, 8, 4)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"width and layers of the discriminator must be at least 1"):
        Discriminator(1, 8, 0)
