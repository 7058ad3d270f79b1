"""What speculative decoding carries from round to round: rollback, images that part and meet, memory."""

from itertools import pairwise
from weakref import WeakSet

import pytest
import torch
from sdvar_toys import LABELS, pair

from litscale.models.layers.kv_cache import KVCache
from litscale.models.sdvar import Forced, Speculative
from litscale.models.sdvar.state import Stream


@pytest.fixture(scope="module")
def models():
    """About half of the scales are accepted."""
    return pair(0.04)


@pytest.mark.parametrize("cfg", [0.0, 1.5])
@pytest.mark.parametrize("arguments", [{"gamma": 1}, {"gamma": 3}, {"gamma": 2, "ragged": False}], ids=str)
@torch.no_grad()
def test_after_every_round_the_state_is_that_of_a_fresh_pass(models, cfg, arguments):
    labels, rules, lags = torch.tensor(LABELS * 2), ("coupled", "rejection", "topk", Forced(0.5)), set()
    quantizer = models[1].vqvae.quantizer
    rounds = []

    def check(groups):
        rounds.append(groups)
        assert sorted(row for group in groups for row in group.rows.tolist()) == list(range(10))
        for group in groups:
            assert group.f_hats[0].count_nonzero() == 0
            for f_hat, expected in zip(group.f_hats[1:], quantizer.f_hats(group.tokens), strict=True):
                torch.testing.assert_close(f_hat, expected, atol=1e-5, rtol=1e-5)
            for stream in (group.draft, group.target):
                scales = stream.scale
                lags.add(group.finished - scales)
                if not scales:
                    continue
                fresh = Stream.open(stream.model, labels[group.rows], cfg > 0)
                inputs = quantizer.teacher_input(group.tokens)[:, : stream.model.bounds[scales] - 1]
                fresh.model.extend(inputs.repeat(fresh.copies, 1, 1), fresh.condition, fresh.cache, 0)
                for mine, expected in zip(stream.cache.layers, fresh.cache.layers, strict=True):
                    torch.testing.assert_close(mine.held(), expected.held(), atol=1e-5, rtol=1e-5)
                assert torch.equal(stream.condition.embedding, fresh.condition.embedding)
            assert group.target.scale == group.finished

    for rule in rules:
        decoder = Speculative(*models, acceptance=rule, **arguments)
        decoder.on_round = check
        decoder.decode(labels, cfg=cfg, seed=8)
    assert {0, 1} <= lags  # rolled back, and left behind after a fully accepted round
    if decoder.ragged:
        assert max(len(groups) for groups in rounds) > 1


def test_groups_that_part_and_meet_hold_their_caches_once(monkeypatch):
    draft, target = pair(depth=8)
    alive, held_rows, groups = WeakSet(), [], []
    append = KVCache.append

    def watched(layer, keys, values):
        out = append(layer, keys, values)
        alive.add(layer)
        held_rows.append(sum(len(layer._keys) for layer in alive))
        return out

    monkeypatch.setattr(KVCache, "append", watched)
    decoder = Speculative(draft, target, acceptance=Forced(0.5))
    decoder.on_round = lambda now: groups.append(len(now))
    decoder.decode(LABELS * 4, cfg=1.5, seed=0)
    assert min(after - before for before, after in pairwise(groups)) < 0 < max(groups) - 1
    rows = 2 * len(LABELS * 4)  # with guidance
    assert rows * 16 <= max(held_rows) <= rows * 18  # eight layers of each network, and two that are moving
