"""`Throughput`: how fast a training is, how long it waits for data, and how much of the device's arithmetic it uses."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.utilities.throughput import _plugin_to_compute_dtype, get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from callbacks.reporting.trainer_state import logs_now
from datamodules.base import offered
from lit_models.contracts import BatchCounts

FETCH = "train_dataloader_next"  # end of the name under which Lightning has profilers measure the wait for a batch
GIB = 2**30
# Attention on a CPU, which torch's counter does not know.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(gradient, query, key, value)
    ),
}


@dataclass
class _Interval:
    """Measurements since the last logging step."""

    step: int
    began: float  # seconds
    validating: float = 0.0  # seconds
    batches: int = 0
    counts: Counter[str] = field(default_factory=Counter)


class Throughput(Callback):
    """Logs the speed of the training on logging steps, of all processes together and since the last logging step.

    - ``throughput/steps_per_second``, and ``samples_per_second``, ``tokens_per_second`` and ``cells_per_second`` as far
      as the module counts them (`lit_models.contracts.BatchCounts`);
    - ``throughput/data_loading_share``: the part of the time in which a process waited for its next batch, 0..1;
    - ``throughput/peak_memory_gib``: the most memory that a process has allocated on its device so far; on a CPU, the
      most main memory that it has had;
    - ``throughput/mfu``: model FLOPs utilisation, the arithmetic of matrix products, convolutions and attention in
      units of what the devices could do at this precision. It is not logged on CPUs and on devices that Lightning has
      no peak of.

    Validations do not count as time, and neither does the first step of a process. FLOPs are counted once, in the
    first batch of the run, forwards and backwards, and taken to be proportional to the samples; recomputed activations
    count too. That batch runs without ``torch.compile``. Checkpoints keep the count, so that a resumed run neither
    repeats it nor differs from an uninterrupted one. Sharded networks (`ModelParallelStrategy`) are not counted.

    Nothing is read from the device between logging steps. Lightning's own `ThroughputMonitor` waits for it after each
    batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._flops_per_sample: float | None = None
        self._counter: FlopCounterMode | None = None  # while it counts
        self._clock: _LoadingClock | None = None
        self._interval: _Interval | None = None  # from the end of the first step on

    def state_dict(self) -> dict[str, Any]:
        """Return the number of FLOPs of a sample."""
        return {"flops_per_sample": self._flops_per_sample}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of FLOPs of a sample."""
        self._flops_per_sample = state_dict["flops_per_sample"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the peak FLOPs per second of the device, and begin to measure the wait for batches."""
        device, self._peak = trainer.strategy.root_device, None
        if device.type == "cuda":
            self._peak = get_available_flops(device, _plugin_to_compute_dtype(trainer.precision_plugin))
        self._interval = None
        self._clock = _LoadingClock(trainer.profiler)  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to count FLOPs, in the first batch of the run."""
        if self._flops_per_sample is None and self._counter is None and pl_module.device_mesh is None:
            self._counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
            self._counter.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the counts of the batch, and log the numbers on logging steps."""
        counting = offered(pl_module, BatchCounts)
        counts = {} if counting is None else counting.batch_counts(batch)
        if self._counter is not None:
            self._flops_per_sample = self._counter.get_total_flops() / counts.get("samples", 1)
            self._stop_counting()
        if self._interval is None:
            if not trainer.fit_loop._should_accumulate():  # whole steps are counted
                self._begin(trainer)
            return
        self._interval.batches += 1
        self._interval.counts.update(counts)
        if not trainer.fit_loop._should_accumulate() and logs_now(trainer):
            values = self._values(trainer, self._interval)
            pl_module.log_dict({f"throughput/{name}": value for name, value in values.items()}, batch_size=1)
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        assert self._clock is not None
        self._clock.seconds = 0.0
        self._interval = _Interval(trainer.global_step, time.perf_counter())

    def _values(self, trainer: Trainer, interval: _Interval) -> dict[str, float]:
        """Return name -> number for an interval that ends now; all processes call this together."""
        assert self._clock is not None
        # 1. what each process measured, one row each
        device = trainer.strategy.root_device
        seconds = time.perf_counter() - interval.began - interval.validating
        own = [seconds, self._clock.seconds, _peak_memory(device), interval.batches, *interval.counts.values()]
        rows = torch.tensor([own], dtype=torch.float64)
        if trainer.world_size > 1:
            gathered = trainer.strategy.all_gather(rows[0].to(device))
            assert isinstance(gathered, torch.Tensor)
            rows = gathered.cpu()
        (seconds, waited), memory = rows[:, :2].mean(0).tolist(), rows[:, 2].max().item()
        batches, *sums = rows[:, 3:].sum(0).tolist()
        # 2. rates
        counts = dict(zip(interval.counts, sums, strict=True))
        rates = {"steps": trainer.global_step - interval.step, **counts}
        values = {f"{name}_per_second": count / seconds for name, count in rates.items()}
        values |= {"data_loading_share": waited / seconds, "peak_memory_gib": memory / GIB}
        if self._peak is not None and self._flops_per_sample is not None:
            flops = self._flops_per_sample * counts.get("samples", batches)
            values["mfu"] = flops / seconds / (self._peak * trainer.world_size)
        return values

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record when the validation began."""
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude the time of the validation from that of the training."""
        if self._interval is not None:
            self._interval.validating += time.perf_counter() - self._validation_began

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop measuring."""
        self._stop_counting()
        if self._clock is not None:
            self._clock.remove()
            self._clock = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop measuring."""
        self.on_train_end(trainer, pl_module)

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None


class _LoadingClock:
    """Adds up the seconds in which Lightning waits for training batches, which it reports to its profiler.

    Args:
        profiler: the trainer's profiler, which works as before.
    """

    def __init__(self, profiler: Profiler) -> None:
        self.seconds = 0.0
        self._profiler, self._start, self._stop = profiler, profiler.start, profiler.stop
        profiler.start, profiler.stop = self.start, self.stop  # type: ignore[method-assign]

    def start(self, action_name: str) -> None:
        """Start the clock if the action is the loading of a batch."""
        self._start(action_name)
        if action_name.endswith(FETCH):
            self._began = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Stop the clock if the action is the loading of a batch."""
        if action_name.endswith(FETCH):
            self.seconds += time.perf_counter() - self._began
        self._stop(action_name)

    def remove(self) -> None:
        """Restore the profiler's own methods."""
        del self._profiler.start, self._profiler.stop


def _peak_memory(device: torch.device) -> int:
    """Return the peak number of bytes so far: of this process's tensors on a GPU, or else of its main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
