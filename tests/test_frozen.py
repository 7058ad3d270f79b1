"""Options and records cannot be changed by whoever is given them, but for the classes that are filled step by step."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

FILLED = {
    "litscale.models": {
        *("AdaptiveGamma", "CostGamma", "FixedGamma", "_Rate"),  # which count what was accepted
        *("DecodeState", "NetworkState", "PrunedPass", "Task"),
        *("FractalOutput", "LossTerms", "Quantized", "Sampled", "VQOutput"),
    },
    "litscale.music": {"MidiEvents"},
    "litscale.metrics": set(),
    "lit_models": set(),
}


@pytest.mark.parametrize("package", FILLED)
def test_dataclasses_are_frozen_but_for_those_that_are_filled(package):
    found = {}
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        for name, value in inspect.getmembers(importlib.import_module(module.name), dataclasses.is_dataclass):
            if value.__module__ == module.name:
                found[name] = value.__dataclass_params__.frozen
    assert {name for name, frozen in found.items() if not frozen} == FILLED[package]
