"""What speculative decoding carries from round to round: rollback, states that split and merge, memory."""

from itertools import pairwise
from weakref import WeakSet

import pytest
import torch
from sdvar_toys import LABELS, pair

from litscale.models.layers.kv_cache import KVCache
from litscale.models.sdvar import Coupled, Forced, Rejection, Speculative, TopK
from litscale.models.var import NetworkState, VARGeneration


@pytest.fixture(scope="module")
def models():
    """About half of the scales are accepted."""
    return pair(0.04)


@pytest.mark.parametrize("cfg", [0.0, 1.5])
@pytest.mark.parametrize("arguments", [{"gamma": 1}, {"gamma": 3}, {"gamma": 2, "ragged": False}], ids=str)
@torch.no_grad()
def test_after_every_round_the_state_is_that_of_a_fresh_pass(models, cfg, arguments):
    labels, rules, lags = torch.tensor(LABELS * 2), (Coupled(), Rejection(), TopK(k=5), Forced(0.5)), set()
    quantizer = models[1].vqvae.quantizer
    rounds = []

    def check(states):
        rounds.append(states)
        assert sorted(row for state in states for row in state.rows.tolist()) == list(range(10))
        for state in states:
            assert state.f_hats[0].count_nonzero() == 0
            for f_hat, expected in zip(state.f_hats[1:], quantizer.f_hats(state.tokens), strict=True):
                torch.testing.assert_close(f_hat, expected, atol=1e-5, rtol=1e-5)
            for network in (state.draft, state.target):
                scales = network.scale
                lags.add(state.finished - scales)
                if not scales:
                    continue
                fresh = NetworkState.open(network.model, labels[state.rows], VARGeneration(cfg=cfg))
                inputs = quantizer.teacher_input(state.tokens)[:, : network.model.bounds[scales] - 1]
                fresh.model.extend(inputs.repeat(fresh.copies, 1, 1), fresh.condition, fresh.cache, 0)
                for mine, expected in zip(network.cache.layers, fresh.cache.layers, strict=True):
                    torch.testing.assert_close(mine.held(), expected.held(), atol=1e-5, rtol=1e-5)
                assert torch.equal(network.condition.embedding, fresh.condition.embedding)
            assert state.target.scale == state.finished

    for rule in rules:
        decoder = Speculative(*models, acceptance=rule, **arguments)
        decoder.on_round = check
        decoder.decode(labels, VARGeneration(cfg=cfg), seed=8)
    assert {0, 1} <= lags  # rolled back, and left behind after a fully accepted round
    if decoder.ragged:
        assert max(len(states) for states in rounds) > 1


def test_states_that_split_and_merge_hold_their_caches_once(monkeypatch):
    draft, target = pair(depth=8)
    alive, held_rows, counts = WeakSet(), [], []
    append = KVCache.append

    def watched(layer, keys, values):
        out = append(layer, keys, values)
        alive.add(layer)
        held_rows.append(sum(len(layer._keys) for layer in alive))
        return out

    monkeypatch.setattr(KVCache, "append", watched)
    decoder = Speculative(draft, target, acceptance=Forced(0.5))
    decoder.on_round = lambda now: counts.append(len(now))
    decoder.decode(LABELS * 4, VARGeneration(cfg=1.5), seed=0)
    assert min(after - before for before, after in pairwise(counts)) < 0 < max(counts) - 1
    rows = 2 * len(LABELS * 4)  # with guidance
    assert rows * 16 <= max(held_rows) <= rows * 18  # eight layers of each network, and two that are moving
