"""Configs of distilled models fit those of their teachers."""

from pathlib import Path

import pytest
from cli_runs import shipped

from litscale.models.fractal import Fractal
from litscale.models.fractal.compatibility import check_teacher

CONFIGS = Path(__file__).parents[3] / "configs"


def network(config):
    """The network of a config."""
    return Fractal(**config["model"]["init_args"]["network"]["init_args"])


def size(model):
    """The number of its parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "word"), [("digits/fractal_mar", "last"), ("piano_roll/mar", "best")])
def test_a_student_fits_its_teacher_and_is_a_quarter_of_it(name, word):
    configs = shipped("fit", CONFIGS / f"{name}.yaml"), shipped("fit", CONFIGS / f"{name}_distilled.yaml")
    teacher, student = map(network, configs)
    check_teacher(student, teacher)
    assert 0.2 * size(teacher) < size(student) <= 0.25 * size(teacher)
    folder = configs[0]["trainer"]["default_root_dir"]
    assert configs[1]["model"]["init_args"]["teacher_checkpoint"] == f"{folder}/checkpoints/{word}.ckpt"


def test_the_model_without_a_teacher_is_the_same():
    small, distilled = (
        shipped("fit", CONFIGS / "digits" / f"fractal_mar_{name}.yaml") for name in ("small", "distilled")
    )
    assert distilled["model"]["init_args"].pop("teacher_checkpoint")
    assert small["model"]["init_args"].pop("teacher_checkpoint") is None
    assert (distilled["model"]["init_args"].pop("data_weight"), small["model"]["init_args"].pop("data_weight")) == (
        0.5,
        0,
    )
    assert small["model"] == distilled["model"]
    assert small["data"] == distilled["data"]
    assert small["trainer"]["max_steps"] == distilled["trainer"]["max_steps"]
