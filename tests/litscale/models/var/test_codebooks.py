"""What keeps codebooks from collapsing: the rotation trick, SimVQ and the entropy loss."""

import numpy as np
import pytest
import torch
from var_toys import quantizer

from litscale.models.var.codebooks import ProjectedCodebook, entropy_loss, rotated


def rotation(e: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The matrix that turns e to the direction of q in their plane, by cosine and sine, and scales it to q's length."""
    lengths = np.linalg.norm(e), np.linalg.norm(q)
    first = e / lengths[0]
    cosine = first @ q / lengths[1]
    second = q / lengths[1] - cosine * first
    sine = np.linalg.norm(second)
    second = second / sine
    plane = np.stack([first, second], axis=1)  # [dim, 2]
    turned = plane @ np.array([[cosine, -sine], [sine, cosine]]) @ plane.T
    return lengths[1] / lengths[0] * (np.eye(len(e)) - plane @ plane.T + turned)


def test_forward_is_the_quantised_map_and_the_gradient_is_rotated():
    torch.manual_seed(1)
    f = torch.randn(2, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    f_hat, weights = torch.randn(2, 5, 3, 3).double(), torch.randn(2, 5, 3, 3).double()
    out = rotated(f, f_hat)
    torch.testing.assert_close(out, f_hat)
    (out * weights).sum().backward()
    for b, i, j in np.ndindex(2, 3, 3):
        matrix = rotation(f[b, :, i, j].detach().numpy(), f_hat[b, :, i, j].numpy())
        np.testing.assert_allclose(matrix @ f[b, :, i, j].detach().numpy(), f_hat[b, :, i, j].numpy(), rtol=1e-9)
        np.testing.assert_allclose(f.grad[b, :, i, j].numpy(), matrix.T @ weights[b, :, i, j].numpy(), atol=1e-9)


def test_vectors_without_a_plane_of_rotation():
    f = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    f_hat = torch.tensor([[2.0, 4.0], [-1.0, -2.0], [1.0, 1.0], [0.0, 0.0]])
    out = rotated(f[..., None, None], f_hat[..., None, None])
    torch.testing.assert_close(out[..., 0, 0], f_hat)
    out.sum().backward()
    assert f.grad.isfinite().all()
    torch.testing.assert_close(f.grad[0], torch.tensor([2.0, 2.0]))  # the same direction: scaled alone


def test_the_quantiser_passes_its_gradient_rotated():
    plain, turned = quantizer(), quantizer(rotation=True)
    f, weights = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    first, second = plain(f), turned(f.requires_grad_())
    torch.testing.assert_close(first.f_hat, second.f_hat)
    assert first.loss.equal(second.loss)
    (second.f_hat * weights).sum().backward()
    matrix = rotation(f[1, :, 2, 3].detach().numpy(), first.f_hat[1, :, 2, 3].detach().numpy())
    np.testing.assert_allclose(f.grad[1, :, 2, 3].numpy(), matrix.T @ weights[1, :, 2, 3].numpy(), atol=1e-5)
    assert not torch.allclose(f.grad, weights, atol=0.1)


def test_simvq_learns_a_map_of_frozen_vectors():
    made, f = quantizer(simvq=True), torch.randn(2, 4, 4, 4)
    book = made.codebook
    assert {name for name, _ in book.named_parameters()} == {"map.weight", "map.bias"}
    assert "base" in book.state_dict()
    expected = book.base.numpy() @ book.map.weight.detach().numpy().T + book.map.bias.detach().numpy()
    np.testing.assert_allclose(book.weight.detach().numpy(), expected, atol=1e-6)
    tokens = torch.tensor([[3, 0], [15, 3]])
    np.testing.assert_allclose(book(tokens).detach().numpy(), expected[tokens.numpy()], atol=1e-6)
    # One code is looked up, and all of them move.
    before, base = book.weight.detach().clone(), book.base.clone()
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    out = made(f)
    out.codebook_loss.backward()
    optimizer.step()
    assert ((book.weight - before).abs().amax(1) > 1e-4).all()
    assert book.base.equal(base)
    torch.testing.assert_close(made.f_hats(out.tokens)[0].shape, f.shape)
    with pytest.raises(ValueError, match="codes of simvq are a map of frozen vectors and cannot be restarted"):
        made.restart(torch.ones(16, dtype=torch.bool), torch.zeros(16, 4))


def test_frozen_vectors_have_a_length_of_about_one():
    torch.manual_seed(0)
    assert ProjectedCodebook(2000, 9).base.square().sum(1).mean() == pytest.approx(1, rel=0.05)


def test_mutual_information_by_hand():
    # Two queries in units of the mean smallest distance, (1 + 3) / 2 = 2: softmax of -1/2, -2 and of -3/2, -3/2.
    distances = torch.tensor([[1.0, 4.0], [3.0, 3.0]])
    first = 1 / (1 + np.exp(-1.5))

    def bits(*shares):
        return -sum(share * np.log2(share) for share in shares)

    expected = (bits(first, 1 - first) + 1) / 2 - bits((first + 0.5) / 2, (1.5 - first) / 2)
    assert entropy_loss(distances, 1.0).item() == pytest.approx(expected)
    # Assignments that are clear, or as even as can be: 3/4 and 1/4 of the queries, of which the second is undecided.
    assert entropy_loss(distances, 1e-4).item() == pytest.approx(0.5 - bits(0.75, 0.25), abs=1e-4)
    assert entropy_loss(torch.eye(8).repeat(3, 1) * -5 + 6, 0.1).item() == pytest.approx(-1)
    single = torch.cat([torch.ones(6, 1), torch.full((6, 3), 99.0)], dim=1)
    assert entropy_loss(single, 0.1).item() == pytest.approx(0, abs=1e-6)
    assert entropy_loss(torch.ones(6, 4), 1.0).item() == pytest.approx(0, abs=1e-6)  # equal codes are worth nothing


@pytest.mark.parametrize("znorm", [False, True])
def test_entropy_pulls_codes_and_features_in_training_alone(znorm):
    made, plain, f = quantizer(entropy=0.3, znorm=znorm), quantizer(znorm=znorm), torch.randn(3, 4, 4, 4)
    given = f.clone().requires_grad_()
    out, other = made(given), plain(f)
    assert other.entropy_loss is None
    torch.testing.assert_close(out.loss, other.loss + 0.3 * out.entropy_loss)
    assert all(a.equal(b) for a, b in zip(out.tokens, other.tokens, strict=True))
    assert not any(query.requires_grad for query in out.queries)
    gradients = torch.autograd.grad(out.entropy_loss, [given, made.codebook.weight])
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    # distances are divided by the temperature, which is 1 unless it is given
    stated = quantizer(entropy=0.3, znorm=znorm, entropy_temperature=1.0)
    assert torch.equal(stated(f).entropy_loss, out.entropy_loss)
    assert not torch.equal(
        quantizer(entropy=0.3, znorm=znorm, entropy_temperature=2.0)(f).entropy_loss, out.entropy_loss
    )
    assert made.eval()(f).entropy_loss is None


def test_entropy_spreads_a_codebook_that_few_queries_use():
    def used(entropy):
        made = quantizer(vocab=32, entropy=entropy, patch_nums=(2, 4), znorm=True)
        made.codebook.weight.data[4:] += 3  # all of them in one direction
        optimizer = torch.optim.Adam(made.parameters(), 0.05)
        f = torch.randn(32, 4, 4, 4, generator=torch.Generator().manual_seed(3))
        for _ in range(150):
            optimizer.zero_grad()
            made(f).loss.backward()
            optimizer.step()
        return (made(f).counts > 0).float().mean(1).min()

    assert used(0.0) < 0.6
    assert used(1.0) > 0.8


@pytest.mark.parametrize("options", [{"entropy": -0.1}, {"entropy_temperature": 0.0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="entropy must not be negative and entropy_temperature must be above 0"):
        quantizer(**options)
