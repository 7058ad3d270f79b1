"""A small run of each module, none of whose options of generation has its default."""

import yaml

from lit_models import LitFractal, LitSDVAR, LitVAR, LitVQVAE
from litscale.cli.main import main

TOKENIZER = {"patch_nums": [1, 2, 4], "vocab": 16, "dim": 8, "channels": 8, "multipliers": [1, 2], "blocks": 1}
VQVAE = {"class_path": "litscale.models.var.VQVAE", "init_args": TOKENIZER | {"in_channels": 1}}
EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}


def network(depth, **options):
    """A transformer in a config."""
    sizes = {"num_classes": 10, "depth": depth, "width": 16, "heads": 2}
    return {"class_path": "litscale.models.var.VAR", "init_args": sizes | options}


FRACTAL = {
    "sizes": [[8, 8], [4, 4], [1, 1]],
    "generators": ["mar", "ar"],
    "widths": [16, 16, 16],
    "blocks": [1, 1, 1],
    "heads": [2, 2, 2],
    "codec": "gray",
    "num_classes": 10,
}
# All options of generation are off their defaults, so that none can be forgotten.
MODELS = {
    "fractal": {
        "class_path": "lit_models.LitFractal",
        "init_args": {
            "network": {"class_path": "litscale.models.fractal.Fractal", "init_args": FRACTAL},
            "generation": {"iterations": [3, 2], "temperature": 0.7, "cfg": 2.0, "cfg_schedule": "constant"},
        },
    },
    "vqvae": {
        "class_path": "lit_models.LitVQVAE",
        "init_args": {"network": VQVAE, "discriminator": {"weight": 0.5, "width": 8, "layers": 1}},
    },
    "var": {
        "class_path": "lit_models.LitVAR",
        "init_args": {
            "network": network(2, vqvae=VQVAE),
            "generation": {"cfg": 0.5, "top_k": 3, "temperature": 0.8},
        },
    },
    "sdvar": {
        "class_path": "lit_models.LitSDVAR",
        "init_args": {
            "vqvae": VQVAE,
            "draft": network(1),
            "target": network(2),
            "decoder": {
                "class_path": "litscale.models.sdvar.Speculative",
                "init_args": {"gamma": 2, "acceptance": "litscale.models.sdvar.TopK"},
            },
            "generation": {"cfg": 0.5, "top_k": 3, "temperature": 0.8},
        },
    },
}
CLASSES = {"fractal": LitFractal, "vqvae": LitVQVAE, "var": LitVAR, "sdvar": LitSDVAR}


def settings(folder, name):
    """The config of a run of two steps."""
    digits = {"batch_size": 8, "size": 8, "predict": {"num_samples": 3, "seed": 5}}
    data = {"class_path": "datamodules.DigitsDataModule", "init_args": digits}
    if name == "vqvae":  # whose predictions are tokens of images
        data = {"class_path": "datamodules.TokenizationDataModule", "init_args": {"source": data, "splits": ["test"]}}
    trainer = {"accelerator": "cpu", "max_steps": 2, "limit_val_batches": 1, "limit_predict_batches": 1}
    trainer |= {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer |= {"num_sanity_val_steps": 0, "val_check_interval": 1, "default_root_dir": str(folder / name)}
    trainer["callbacks"] = [EMA] if name in ("fractal", "vqvae") else []
    model = {**MODELS[name], "init_args": {**MODELS[name]["init_args"], "optimization": {"lr": 0.1}}}
    if name == "var":
        model["init_args"]["tokenizer_checkpoint"] = str(folder / "vqvae" / "checkpoints" / "last.ckpt")
    monitor = {"monitor": "val/bits_per_dim", "mode": "max"} if name == "fractal" else {}
    return {"seed_everything": 3, "trainer": trainer, "checkpoints": monitor, "model": model, "data": data}


def train(folder):
    """Train one run for each module, the tokenizer's first, and write the data that it predicts of beside it."""
    for name in ("vqvae", "fractal", "var", "sdvar"):
        config = settings(folder, name)
        fit = config | {"data": config["data"]["init_args"]["source"]} if name == "vqvae" else config
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(fit))
        main(["fit", "--config", str(folder / f"{name}.yaml")])
        (folder / f"{name}_data.yaml").write_text(yaml.safe_dump({"data": config["data"]}))
    return folder
