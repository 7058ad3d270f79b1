"""What keeps the codes of Fashion-MNIST's tokenizer in use: each remedy alone, and those of the shipped config.

    FASHION_MNIST=FOLDER python benchmarks/tokenizer_ablation.py [--steps 1500] [--folder runs/fashion/ablation]

Trains and tests a tokenizer for each row, one after the other, in a folder of its own; one that is interrupted goes on
where it was, and rows that are done are kept. Prints a Markdown table: PSNR, rFID in the features of FashionFeatures,
and usage and perplexity of the codes at each scale.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from measuring import option_parser

CONFIG = Path(__file__).parents[1] / "configs" / "fashion_mnist" / "vqvae.yaml"
NOTHING = {"network.znorm": "false", "network.phis": "4", "network.entropy": "0", "restart_every": "0"}
ROWS = {
    "nothing": {},
    "restarts": {"restart_every": "50"},
    "rotation trick": {"network.rotation": "true"},
    "SimVQ": {"network.simvq": "true"},
    "entropy": {"network.entropy": "0.3"},
    "direction": {"network.znorm": "true", "network.phis": "0"},
    "direction, entropy": {"network.znorm": "true", "network.phis": "0", "network.entropy": "0.3"},
    "shipped (direction, entropy, restarts)": {
        "network.znorm": "true",
        "network.phis": "0",
        "network.entropy": "0.3",
        "restart_every": "50",
    },
}


def litscale(*words: str) -> None:
    """Run a litscale command; its output is shown only if it fails."""
    run = subprocess.run([sys.executable, "-m", "litscale", *words], capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{' '.join(words)}\n{run.stdout}\n{run.stderr}")


def scores(folder: Path, options: dict[str, str], steps: int, rest: list[str]) -> dict[str, float]:
    """Return the scores of a row; it is trained and tested first unless that is done."""
    last = folder / "checkpoints" / "last.ckpt"
    if not (found := sorted(folder.glob("scores_test_*.json"))):
        changed = [word for name, value in (NOTHING | options).items() for word in (f"--model.{name}", value)]
        train = ["--trainer.max_steps", str(steps), "--model.restart_until", str(steps * 4 // 5), *rest]
        resumed = ["--ckpt_path", str(last)] if last.is_file() else []
        place = ["--trainer.default_root_dir", str(folder), "--trainer.enable_progress_bar", "false"]
        litscale("fit", "--config", str(CONFIG), *place, "--overwrite", "true", *changed, *train, *resumed)
        litscale("test", "--config", str(folder / "config.yaml"), "--ckpt_path", str(last))
        found = sorted(folder.glob("scores_test_*.json"))
    return json.loads(found[-1].read_text())["scores"]


def main() -> None:
    """Train, test and print what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="of each training, 64 pictures a step")
    parser.add_argument("--folder", type=Path, default=Path("runs/fashion/ablation"))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    options, rest = parser.parse_known_args()
    for number, name in enumerate(options.rows):
        folder = options.folder / f"{name.replace(' ', '_')}_{options.steps}_steps"
        found = scores(folder, ROWS[name], options.steps, rest)
        scales = sum(key.startswith("test/usage/") for key in found)
        if not number:
            print(f"| remedy | PSNR, dB | rFID | {' | '.join(f'scale {k}' for k in range(scales))} |")
            print("| --- " * (scales + 3) + "|")
        codes = [
            f"{found[f'test/usage/scale_{k}']:.0f} %, {found[f'test/perplexity/scale_{k}']:.0f}" for k in range(scales)
        ]
        cells = [name, f"{found['test/psnr']:.2f}", f"{found['test/rfid']:.3f}", *codes]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
