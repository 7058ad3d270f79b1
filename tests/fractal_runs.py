"""Run folders of small fractal models that other modules name."""

import torch
import yaml

from lit_models import LitFractal
from litscale.models.fractal import Fractal


def write_run(folder, network, word="last"):
    """Write a run of a LitFractal with these options of its network and random weights; returns its checkpoint."""
    (folder / "checkpoints").mkdir(exist_ok=True)
    torch.manual_seed(7)
    module = LitFractal(Fractal(**network))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = folder / "checkpoints" / f"{word}.ckpt"
    torch.save({"state_dict": module.state_dict()}, path)
    options = {"network": {"class_path": "litscale.models.fractal.Fractal", "init_args": network}}
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"model": {"class_path": "lit_models.LitFractal", "init_args": options}})
    )
    return path
