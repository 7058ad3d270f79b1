"""Options are refused where they are made, with a message that names them."""

import json
from dataclasses import asdict
from math import inf, nan

import numpy as np
import pytest
import torch

from lit_models import DiscriminatorConfig, Generation, Optimization, TokenizerLoss, VARGeneration
from litscale.models.var import Pruning


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Generation, {"order": "spiral"}, "order must be among random, raster, confidence, not 'spiral'"),
        (Generation, {"weights": "int4"}, "weights must be among float32, bfloat16, int8, not 'int4'"),
        (Generation, {"temperature": -1.0}, r"temperature must be positive, not -1\.0"),
        (Generation, {"temperature": nan}, "temperature must be positive, not nan"),
        (Generation, {"iterations": 0}, "iterations must be at least 1, not 0"),
        (Generation, {"iterations": [8, 0]}, r"iterations must be at least 1, not \[8, 0\]"),
        (Generation, {"iterations": []}, r"iterations must be at least 1, not \[\]"),
        (Generation, {"iterations": 2.5}, r"iterations must be a whole number, not 2\.5"),
        (Generation, {"iterations": [8, 2.5]}, r"iterations must be a whole number, not 2\.5"),
        (Generation, {"iterations": "8"}, "iterations must be a whole number, not 8"),
        (Generation, {"min_p": "a"}, "min_p must be a number, not a"),
        (Generation, {"parallel_level": 1.5}, r"parallel_level must be a whole number, not 1\.5"),
        (Generation, {"schedule": "sine"}, "schedule must be among cosine, linear, not 'sine'"),
        (Generation, {"schedule": ["linear", "fast"]}, "schedule must be among cosine, linear, not 'fast'"),
        (Generation, {"cfg": -0.5}, r"cfg must not be negative, not -0\.5"),
        (Generation, {"cfg_schedule": "cosine"}, "cfg_schedule must be among linear, constant, not 'cosine'"),
        (Generation, {"min_p": 1.5}, r"min_p must be in 0\.\.1, not 1\.5; 0 draws among all symbols"),
        (Generation, {"filter_threshold": 1.5}, r"filter_threshold must be in 0\.\.1, not 1\.5"),
        (VARGeneration, {"cfg": nan}, "cfg must not be negative, not nan"),
        (VARGeneration, {"temperature": inf}, "temperature must be positive, not inf"),
        (VARGeneration, {"top_p": 2.0}, r"top_p must be in 0\.\.1, not 2\.0"),
        (VARGeneration, {"top_k": -1}, "top_k must not be negative, not -1"),
        (VARGeneration, {"top_k": 1.5}, r"top_k must be a whole number, not 1\.5"),
        (VARGeneration, {"top_k": [0, 1.5]}, r"top_k must be a whole number, not 1\.5"),
        (VARGeneration, {"top_k": torch.tensor([[1]]).tolist()}, r"top_k must be a whole number, not \[1\]"),
        (VARGeneration, {"top_k": np.array([0, 1.5])}, r"top_k must be a whole number, not 0\.0"),
        (VARGeneration, {"top_k": ()}, "top_k must be one value, or one for each scale, not an empty list"),
        (VARGeneration, {"top_p": "0.9"}, r"top_p must be a number, not 0\.9"),
        (VARGeneration, {"top_p": None}, "top_p must be a number, not None"),
        (VARGeneration, {"top_p": [0.9, "a"]}, "top_p must be a number, not a"),
        (VARGeneration, {"temperature": torch.ones(2, 2)}, "temperature must be a number, not tensor"),
        (VARGeneration, {"cfg": "a"}, "cfg must be a number, not a"),
        (VARGeneration, {"cfg_until": 2.5}, r"cfg_until must be a whole number, not 2\.5"),
        (Optimization, {"lr": nan}, "optimization.lr must not be negative, got nan"),
        (Optimization, {"betas": (0.9, 1.0)}, r"optimization.betas must be at least 0 and below 1, got \(0\.9, 1\.0\)"),
        (TokenizerLoss, {"l1": -1.0}, r"loss.l1 must not be negative, got -1\.0"),
        (TokenizerLoss, {"perceptual_net": "resnet"}, "loss.perceptual_net must be vgg, alex, squeeze, not 'resnet'"),
        (DiscriminatorConfig, {"weight": nan}, "discriminator.weight must not be negative, got nan"),
        (DiscriminatorConfig, {"layers": 0}, "discriminator.layers must be at least 1, got 0"),
    ],
)
def test_one_clear_error(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Generation, {"cfg": 0.0, "iterations": 1, "filter_threshold": 0.0}),
        (Generation, {"filter_threshold": 1.0}),
        (VARGeneration, {"cfg": 0.0, "top_k": 0, "top_p": 0.0}),
        (VARGeneration, {"top_p": 1.0}),
        (Optimization, {"lr": 0.0, "betas": (0.0, 0.0)}),
        (TokenizerLoss, {"l1": 0.0}),
        (DiscriminatorConfig, {"weight": 0.0, "layers": 1}),
    ],
)
def test_the_ends_of_ranges_are_allowed(kind, options):
    made = kind(**options)
    assert {name: getattr(made, name) for name in options} == options


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        (VARGeneration, {"top_k": [0, 0, 1]}, {"top_k": (0, 0, 1)}),
        (VARGeneration, {"top_k": np.array([0, 3])}, {"top_k": (0, 3)}),
        (VARGeneration, {"top_k": torch.tensor([0, 3])}, {"top_k": (0, 3)}),
        (VARGeneration, {"top_k": [np.int64(2), torch.tensor(3)]}, {"top_k": (2, 3)}),
        (VARGeneration, {"top_k": np.int32(5), "cfg_until": np.int64(4)}, {"top_k": 5, "cfg_until": 4}),
        (VARGeneration, {"top_k": torch.tensor(5), "cfg": torch.tensor(2.5)}, {"top_k": 5, "cfg": 2.5}),
        (VARGeneration, {"top_p": np.float32(0.5), "temperature": [1, 0.5]}, {"top_p": 0.5, "temperature": (1.0, 0.5)}),
        (
            Pruning,
            {"from_scale": np.int64(3), "ratios": [0.5, np.float32(0.25)]},
            {"from_scale": 3, "ratios": (0.5, 0.25)},
        ),
        (Generation, {"iterations": np.int64(4), "token_cache": (2, 1)}, {"iterations": 4, "token_cache": [2, 1]}),
        (Generation, {"min_p": torch.tensor(0.25), "cfg": np.float64(2)}, {"min_p": 0.25, "cfg": 2.0}),
    ],
)
def test_lists_and_numbers_of_numpy_and_torch_become_those_of_python(kind, given, wanted):
    made = asdict(kind(**given))
    assert {name: made[name] for name in wanted} == wanted
    assert all(type(made[name]) is type(value) for name, value in wanted.items())
    assert json.loads(json.dumps(made)).keys() == made.keys()
    if kind is not Generation:
        assert hash(kind(**given)) == hash(kind(**wanted))


def test_iterations_of_another_number_of_levels_are_refused_by_the_module(toy_module):
    with pytest.raises(ValueError, match="iterations has 3 entries for 2 levels: give one, or one per level"):
        toy_module(generation=Generation(iterations=[4, 4, 4]))
    assert toy_module(generation=Generation(iterations=[4, 2])).generation.iterations == [4, 2]


def test_schedules_of_another_number_of_levels_are_refused_by_the_module(toy_module):
    with pytest.raises(ValueError, match="schedule has 3 entries for 2 levels: give one, or one per level"):
        toy_module(generation=Generation(schedule=["linear"] * 3))
    assert toy_module(generation=Generation(schedule=["linear", "cosine"])).generation.schedule == ["linear", "cosine"]


@pytest.mark.parametrize("level", [0, 2])
def test_a_parallel_level_that_the_network_does_not_have_is_refused_by_the_module(toy_module, level):
    with pytest.raises(
        ValueError, match=rf"parallel_level must be a level from which on all are AR \(1\), not {level}"
    ):
        toy_module(("ar", "ar"), generation=Generation(parallel_level=level))
    assert toy_module(("ar", "ar"), generation=Generation(parallel_level=1)).generation.parallel_level == 1


def test_guidance_without_classes_is_refused_by_the_module(toy_module):
    with pytest.raises(ValueError, match=r"cfg 2\.0 needs a network with classes: set num_classes, or cfg to 1"):
        toy_module(generation=Generation(cfg=2.0))
    assert toy_module(generation=Generation(cfg=2.0), num_classes=3).generation.cfg == 2
