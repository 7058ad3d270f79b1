"""The teacher of a fractal model that is distilled."""

from __future__ import annotations

from pathlib import Path

from lit_models.runs import load_run
from litscale.models.fractal import Fractal
from litscale.models.fractal.distillation import check_teacher


def load_teacher(path: str, student: Fractal) -> Fractal:
    """Load the network of a run that is to teach another one.

    Args:
        path: A checkpoint in the run folder of the teacher, whose config.yaml says which network it is of.
        student: The network that it is to teach.

    Returns:
        The network in evaluation mode, frozen, on the CPU.

    Raises:
        FileNotFoundError: there is no such file, or it is not in a run folder.
        ValueError: the run cannot be read, is of another kind of network, or does not fit the student.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"teacher_checkpoint {path}: no such file")
    try:
        teacher = load_run(Path(path).resolve().parent.parent, path).network
        if not isinstance(teacher, Fractal):
            raise ValueError(f"its network is {type(teacher).__name__}, not litscale.models.fractal.Fractal")
        check_teacher(student, teacher)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f"teacher_checkpoint {path}: {error}. Give FOLDER/checkpoints/NAME.ckpt of a run folder with its "
            "config.yaml, and make the network's options those of the teacher except widths, blocks and heads"
        ) from error
    return teacher.requires_grad_(False)
