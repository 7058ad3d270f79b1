"""Speed of a training under a clock that the test moves, FLOPs worked out by hand, and what each module counts."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rank_runs import two_ranks
from run_toys import Data, Model, fit, last
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from callbacks import Throughput, throughput

# Two linear maps of 4 x 8, batches of two: forwards, for both weights, and for the input of the second one.
FLOPS_OF_A_BATCH = 5 * 2 * 2 * 4 * 8


class Timed(Model):
    """A step takes 0.75 seconds of the clock, a validation 100; batches count as three samples of 40 cells."""

    def __init__(self, clock, **options):
        super().__init__(**options)
        self.clock, self.seen_values = clock, []

    def batch_counts(self, batch):
        return {"samples": 3, "cells": 40}

    def training_step(self, batch, batch_idx):
        self.clock.now += 0.75
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.clock.now += 100
        return super().validation_step(batch, batch_idx)

    def log_dict(self, values, **options):
        self.seen_values.append(values)
        super().log_dict(values, **options)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by 0.25 seconds for each batch that is loaded."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(throughput, "time", clock)
    original = Data.train_dataloader

    class Slow(torch.utils.data.Dataset):
        def __init__(self, data):
            self.data = data

        def __len__(self):
            return len(self.data)

        def __getitem__(self, key):
            clock.now += 0.125
            return self.data[key]

    def slowly(self):
        loader = original(self)
        return type(loader)(Slow(loader.dataset), self.batch_size, sampler=loader.sampler)

    monkeypatch.setattr(Data, "train_dataloader", slowly)
    return clock


def test_rates_by_hand(tmp_path, clock, monkeypatch):
    peak = {"throughput/mfu": FLOPS_OF_A_BATCH / 1.0 / 5000}
    monkeypatch.setattr(throughput, "_peak_memory", lambda device: 3 * 2**29)
    callback, module = Throughput(), Timed(clock)
    start = callback.on_train_start
    monkeypatch.setattr(callback, "on_train_start", lambda *args: (start(*args), setattr(callback, "_peak", 5000)))
    fit(tmp_path, module, callbacks=[callback], log_every_n_steps=4)  # validated after 9 and 18 steps, ends after 21
    assert callback._flops_per_sample * 3 == FLOPS_OF_A_BATCH
    assert len(module.seen_values) == 5
    for values in module.seen_values:
        assert values == pytest.approx(
            {
                "throughput/steps_per_second": 1,
                "throughput/samples_per_second": 3,
                "throughput/cells_per_second": 40,
                "throughput/data_loading_share": 0.25,
                "throughput/peak_memory_gib": 1.5,
                **peak,
            }
        )


def test_steps_of_several_batches(tmp_path, clock):
    module = Timed(clock)
    fit(tmp_path, module, callbacks=[Throughput()], log_every_n_steps=2, accumulate_grad_batches=2, max_steps=8)
    # An epoch ends with a batch that is a step by itself, and the first interval misses the first step.
    steps = [values["throughput/steps_per_second"] for values in module.seen_values]
    assert steps == pytest.approx([1 / 2, 2 / 4, 2 / 3, 2 / 4])
    for values in module.seen_values:
        assert values["throughput/samples_per_second"] == pytest.approx(3)
        assert "throughput/mfu" not in values  # a CPU


def test_it_changes_nothing_and_counts_once(tmp_path, monkeypatch):
    fit(tmp_path / "without")
    fit(tmp_path / "with", callbacks=[Throughput()], max_steps=13)
    monkeypatch.setattr(throughput, "FlopCounterMode", None)
    resumed = Throughput()
    fit(tmp_path / "with", callbacks=[resumed], ckpt_path=tmp_path / "with" / "checkpoints" / "last.ckpt")
    assert resumed._flops_per_sample == FLOPS_OF_A_BATCH  # of a batch, as these batches are no canvases
    for name, value in last(tmp_path / "without")["state_dict"].items():
        assert torch.equal(last(tmp_path / "with")["state_dict"][name], value)


def test_a_failing_step_leaves_no_counter_and_no_clock_behind(tmp_path):
    def fail(step):
        raise ValueError("x")

    callback = Throughput()
    with pytest.raises(ValueError, match="x"):
        fit(tmp_path, Model({"forward": fail}), callbacks=[callback])
    assert (callback._counter, callback._clock) == (None, None)
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_attention_on_a_cpu_is_counted():
    query, key = torch.randn(2, 3, 16, 8, requires_grad=True), torch.randn(2, 3, 24, 8)
    product = 2 * 2 * 3 * 16 * 24 * 8
    with FlopCounterMode(display=False, custom_mapping=throughput.CPU_ATTENTION) as counter:
        made = scaled_dot_product_attention(query, key, key)
        assert counter.get_total_flops() == 2 * product
        made.sum().backward()
    assert counter.get_total_flops() == 7 * product  # five more, as the kernel recomputes the weights


def test_two_processes_are_counted_together(tmp_path):
    ranks, _ = two_ranks(Path(__file__).with_name("two_ranks_throughput.py"), tmp_path / "two")
    for seen in ranks:
        assert seen == pytest.approx(ranks[0])
        assert seen["samples_per_second"] == pytest.approx(2 * 3 * seen["steps_per_second"])
        assert seen["peak_memory_gib"] == 2.0  # of the process that took more
