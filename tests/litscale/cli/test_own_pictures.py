"""The layer that docs/data.md shows trains on a folder of PNG files."""

import re
from pathlib import Path

import torch
from image_files import encoded, photo

from litscale.cli.main import main

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
SMALL = {"sizes": "[[8,8],[4,4],[1,1]]", "widths": "[16,16,16]", "blocks": "[1,1,1]", "heads": "[2,2,2]"}


def test_a_folder_of_png_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().split("### Your own pictures")[1].split("\n### ")[0]
    (layer,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    Path("pictures.yaml").write_text(layer)
    for split, count in (("train", 3), ("val", 2)):
        Path("pictures", split).mkdir(parents=True)
        for number in range(count):
            (Path("pictures") / split / f"{number}.png").write_bytes(encoded(photo(20 + number, 15, number)))
    words = ["fit", "--config", "imagenet/fractalmar_in64.yaml", "--config", "pictures.yaml", "--data.size", "8"]
    words += ["--data.batch_size", "2", "--data.num_workers", "0", "--model.nll_passes", "1"]
    words += [word for name, value in SMALL.items() for word in (f"--model.network.{name}", value)]
    words += ["--model.generation.iterations", "1", "--trainer.max_steps", "1"]
    words += ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", "."]
    for name, value in {"accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": "32-true"}.items():
        words += [f"--trainer.{name}", str(value)]
    main(words)
    saved = torch.load("runs/pictures/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 1
    assert not any("class_emb" in name for name in saved["state_dict"])
