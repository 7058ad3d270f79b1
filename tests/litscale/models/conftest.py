"""Fixtures for the networks' tests."""

import pytest
import torch

from litscale.models.fractal import generate


class SampleConditions:
    """Records the conditions that each level below the first, and the leaf, receives."""

    def __call__(self, model, **options):
        """Sample; returns the canvas and, by level, the conditions of its patches in teacher-forced order."""
        received = {}
        order = {}
        hooks = []
        for depth, level in enumerate(model.levels):
            grids = level.generator.config.grid
            order[depth] = level.generator.order(grids, torch.device("cpu")).argsort()
        for depth, level in enumerate(model.levels[1:], start=1):
            original = level.generator.stepper

            def stepper(conditions, *rest, original=original, depth=depth):
                received.setdefault(depth, []).append(conditions)
                return original(conditions, *rest)

            hooks.append((level.generator, original))
            level.generator.stepper = stepper
        begun = model.leaf.stepper

        def leaf(conditions, tables):
            received.setdefault("leaf", []).append(conditions)
            return begun(conditions, tables)

        model.leaf.stepper = leaf
        try:
            canvas = generate(model, **options)
        finally:
            for generator, original in hooks:
                generator.stepper = original
            model.leaf.stepper = begun
        return canvas, {
            name: self._raster(torch.stack(values), order, len(model.levels) if name == "leaf" else name)
            for name, values in received.items()
        }

    @staticmethod
    def _raster(steps, order, depth):
        """Steps ``[N_0 * .. * N_depth-1, B, K, D]`` in visiting order -> rows in the recursion's order."""
        counts = [len(order[i]) for i in range(depth)]
        steps = steps.reshape(*counts, *steps.shape[1:])
        for axis in range(depth):
            steps = steps.index_select(axis, order[axis])
        return steps.movedim(depth, 0).flatten(0, depth)

    @staticmethod
    def forced(model, canvas):
        """The same conditions in one teacher-forced pass."""
        received = {}
        hooks = [
            level.generator.register_forward_hook(
                lambda module, args, output, depth=depth: received.__setitem__(depth, args[1])
            )
            for depth, level in enumerate(model.levels)
        ]
        hooks.append(
            model.leaf.register_forward_hook(lambda module, args, output: received.__setitem__("leaf", args[1]))
        )
        with torch.no_grad():
            loss = model.eval()(canvas).loss
        for hook in hooks:
            hook.remove()
        return received, loss


def _stir(module, std=0.3):
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=std)
    return module.eval()


@pytest.fixture
def stir():
    """Redraw every parameter, so that all inputs matter: ``stir(module, std) -> module`` in eval mode."""
    return _stir


@pytest.fixture
def sample_conditions():
    """See :class:`SampleConditions`."""
    return SampleConditions()
