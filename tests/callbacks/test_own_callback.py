"""The callback and the feature extractor that docs/extending.md shows, from files of one's own."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from litscale.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
NETWORK = {"sizes": [[8, 8], [4, 4], [1, 1]], "widths": [16] * 3, "blocks": [1] * 3, "heads": [2] * 3}
NETWORK |= {"generators": ["mar", "ar"], "codec": "gray", "num_classes": 10}


@pytest.fixture
def section(tmp_path, monkeypatch):
    """Writes the code of a section to the folder where the test works; what its YAML says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(title):
        text = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        name = re.match(r"# (\w+)\.py\n", code)[1]
        monkeypatch.delitem(sys.modules, name, raising=False)
        Path(f"{name}.py").write_text(code)
        (layer,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        return yaml.safe_load(layer)["trainer"]["callbacks+"]

    return write


def scores_of_validation(callbacks):
    """Validate an untrained model of digits."""
    trainer = {"accelerator": "cpu", "logger": False, "default_root_dir": "run", "callbacks": callbacks}
    network = {"class_path": "litscale.models.fractal.Fractal", "init_args": NETWORK}
    model = {"class_path": "lit_models.LitFractal", "init_args": {"network": network, "generation": {"iterations": 1}}}
    data = {"class_path": "datamodules.DigitsDataModule", "init_args": {"size": 8, "batch_size": 64}}
    config = {"seed_everything": 1, "trainer": trainer, "model": model, "data": data}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main(["validate", "--config", "config.yaml", "--untrained", "true", "--trainer.enable_progress_bar", "false"])
    (path,) = Path("run").glob("scores_validate_*.json")
    return json.loads(path.read_text())["scores"]


def test_a_callback(section):
    from sklearn.datasets import load_digits

    share = scores_of_validation(section("My own callback"))["val/zero_share"]
    assert share == pytest.approx((load_digits().images == 0).mean(), abs=0.02)


def test_a_feature_extractor(section):
    (callback,) = section("My own feature extractor")
    callback["init_args"] |= {"num_samples": 20, "batch_size": 20, "cache_dir": "cache"}
    assert scores_of_validation([callback])["val/fid"] > 0
    assert json.loads(Path("run/quality_validate.json").read_text())["features"] == "Contrasts"
    from contrasts import Contrasts

    row = torch.tensor([0, 0, 255, 223], dtype=torch.uint8).expand(2, 1, 5, 4)
    assert Contrasts(bins=8)(row).tolist() == [pytest.approx([1 / 3, 1 / 3, 0, 0, 0, 0, 0, 1 / 3])] * 2
