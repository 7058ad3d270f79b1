"""The ways to compute attention are timed where the network is, and nothing else changes."""

import pytest
import torch
from var_toys import lit_var

from litscale.models.var import attention_times as module
from litscale.models.var.attention_times import attention_times
from litscale.models.var.scale_attention import attend


def record(monkeypatch, fails=()):
    """Queries that were attended with, and refusals of kinds of masks."""
    seen = []

    def recorded(q, k, v, mask, scale):
        if type(mask) in fails:
            raise RuntimeError("out of memory")
        seen.append((type(mask), q))
        return attend(q, k, v, mask, scale)

    monkeypatch.setattr(module, "attend", recorded)
    monkeypatch.setattr(module, "_SECONDS", 1e-3)
    return seen


@pytest.mark.parametrize("autocast", [False, True])
def test_times_passes_over_all_scales_as_they_are_trained(monkeypatch, autocast):
    seen, network = record(monkeypatch), lit_var().network
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        times = attention_times(network, 5)
    assert times.keys() == {"dense", "scales"}  # FlexAttention does not train on a CPU
    assert min(times.values()) > 0
    assert {kind for kind, _ in seen} == {torch.Tensor, tuple}
    for _, q in seen:
        assert q.shape == (5, 2, 21, 8)
        assert q.requires_grad
        assert q.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_slower_one_takes_longer(monkeypatch):
    def slowed(q, k, v, mask, scale):
        for _ in range(50 if isinstance(mask, torch.Tensor) else 0):
            attend(q, k, v, mask, scale)
        return attend(q, k, v, mask, scale)

    monkeypatch.setattr(module, "attend", slowed)
    monkeypatch.setattr(module, "_SECONDS", 1e-3)
    times = attention_times(lit_var().network, 2)
    assert times["dense"] > times["scales"]


def test_what_does_not_run_is_left_out(monkeypatch):
    record(monkeypatch, fails=(torch.Tensor,))
    with pytest.warns(UserWarning, match=r"attention dense is left out on cpu: out of memory"):
        assert attention_times(lit_var().network, 2).keys() == {"scales"}
    record(monkeypatch, fails=(torch.Tensor, tuple))
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(RuntimeError, match=r"no attention runs on cpu with 2 images; the warnings say why"),
    ):
        attention_times(lit_var().network, 2)


class NanGradient(torch.autograd.Function):
    """Changes nothing on the way forward."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def last_token_lost(made):
    return torch.cat([made[:, :, :-1], torch.zeros_like(made[:, :, -1:])], dim=2)


@pytest.mark.parametrize("spoil", [NanGradient.apply, last_token_lost])
@pytest.mark.parametrize("autocast", [False, True])
def test_what_computes_something_else_is_left_out(monkeypatch, spoil, autocast):
    def spoiled(q, k, v, mask, scale):
        made = attend(q, k, v, mask, scale)
        return spoil(made) if isinstance(mask, tuple) else made

    monkeypatch.setattr(module, "attend", spoiled)
    monkeypatch.setattr(module, "_SECONDS", 1e-3)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        pytest.warns(UserWarning, match=r"attention scales is left out on cpu: its results are not those of dense"),
    ):
        assert attention_times(lit_var().network, 2).keys() == {"dense"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_flex_is_timed_on_a_gpu():
    with torch.autocast("cuda", torch.bfloat16):
        assert attention_times(lit_var(heads=1).network.to("cuda"), 2).keys() == {"dense", "scales", "flex"}
