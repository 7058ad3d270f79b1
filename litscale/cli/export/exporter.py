"""Writing of an exported model: its weights, its config, its card, and on demand the official layouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch import LightningModule

from lit_models import LitSDVAR, LitVAR, LitVQVAE
from lit_models.base import LitModule
from lit_models.runs import CONFIG, checkpoint_path, kept_checkpoint, load_run, read_config
from litscale.cli.export.card import CARD, LOG, Exported, card
from litscale.cli.report.curves import LOGS, as_table, read_curves
from litscale.models.fractal import Fractal, to_official
from litscale.models.var import VAR, VQVAE
from litscale.models.var import to_official as var_to_official
from litscale.storage.checkpoint_record import file_version, record_checkpoint
from litscale.storage.checkpoints import checksum, read_checkpoint, stamp
from litscale.storage.exported import WEIGHTS, by_name, write_exported
from litscale.storage.files import write_atomically
from litscale.storage.temporaries import publish_folder, remove_stale, temporary_folder

DTYPES = ("float32", "bfloat16", "float16")
SHARED = ("seed_everything", "model", "data")  # sections of the config; the trainer's are those of a machine


def export_run(
    run: Path,
    folder: Path,
    *,
    checkpoint: str | None = None,
    dtype: str = "float32",
    official: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write the model of a run as a folder, as a whole or not at all.

    Args:
        run: the run folder.
        folder: the folder to write; its parent is made.
        checkpoint: ``best``, ``last`` or a path; None for the best one if the run keeps it, or else the last one.
        dtype: dtype of the weights, one of `DTYPES`. Tokenizers stay in float32, and so do metrics.
        official: whether to add the weights in the layout of the official code.
        overwrite: whether to replace an earlier export.

    Returns:
        The paths of the files in the folder.

    Raises:
        FileNotFoundError: the run has no config.yaml, or there is no such checkpoint.
        FileExistsError: the folder is not empty, and is no earlier export that may be replaced.
        ValueError: config, checkpoint or log cannot be read, config and checkpoint do not fit together, there is no
            official layout, or a training overwrote the checkpoint meanwhile.
        OSError: the folder could not be written.
    """
    # 1. whether there is a place for it
    _check_place(folder, overwrite)
    # 2. load the run
    config = read_config(run / CONFIG)
    path = checkpoint_path(run, checkpoint or kept_checkpoint(run))
    version = file_version(path)
    module = load_run(run, path)
    content = read_checkpoint(path, verified=False)
    record, weights = record_checkpoint(path), checksum(content["state_dict"])
    if file_version(path) != version:
        raise ValueError(f"{path} was overwritten while it was read: run this again, or export a copy")
    # 3. what a checkpoint of these weights alone holds, by the hook that a trainer would call
    module = module.to(getattr(torch, dtype))
    exported: dict[str, Any] = {name: content[name] for name in ("epoch", "global_step") if name in content}
    exported |= {"pytorch-lightning_version": lightning.__version__, "state_dict": dict(module.state_dict())}
    module.on_save_checkpoint(exported)
    # 4. write all of it
    shared = {name: config[name] for name in SHARED if name in config}
    if isinstance(module, LitModule):
        options = module.standalone_options(shared["model"].get("init_args") or {})
        shared["model"] = shared["model"] | {"init_args": options}
    curves = read_curves([path for pattern in LOGS for path in run.glob(pattern)])
    described = Exported(
        run=run,
        module=module,
        config=shared,
        record=record,
        weights=weights,
        dtype=dtype,
        official=official,
        curves=curves,
    )
    with _named_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent)
    with _named_errors(folder), temporary_folder(folder.parent) as staging:
        write_exported(staging / WEIGHTS, stamp(by_name(exported)))
        write_atomically(staging / CONFIG, yaml.safe_dump(shared, sort_keys=False, allow_unicode=True).encode())
        write_atomically(staging / CARD, card(described).encode())
        if described.curves:
            write_atomically(staging / LOG, as_table(described.curves).csv().encode())
        if official:
            (staging / "official").mkdir()
            for name, state in official_layouts(module).items():
                torch.save(state, staging / "official" / name)
        _check_place(folder, overwrite)  # loading took a while
        publish_folder(staging, folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def official_layouts(module: LightningModule) -> dict[str, Any]:
    """Return file name -> content for ``torch.save``, as the official files of FractalGen or VAR hold a module.

    Raises:
        ValueError: the official code has no such network.
    """
    networks: dict[str, VQVAE | VAR]
    if isinstance(module, LitSDVAR):
        networks = {"vae.pth": module.vqvae, "var_draft.pth": module.draft, "var_target.pth": module.target}
    elif isinstance(module, LitVAR):
        networks = {"vae.pth": module.network.vqvae, "var.pth": module.network}
    elif isinstance(module, LitVQVAE):
        networks = {"vae.pth": module.network}
    elif isinstance(module, LitModule) and isinstance(module.network, Fractal):
        codec = module.network.codec
        if not codec.is_image or codec.channels != 3:
            raise ValueError("--official: FractalGen has networks of RGB images only, and this one is of another codec")
        return {"fractalgen.pth": {"model": to_official(module.network)}}
    else:
        raise ValueError(f"--official: there is no official layout of {type(module).__name__} and its network")
    return {name: var_to_official(network) for name, network in networks.items()}


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Add the option ``--folder`` to the messages of the system's errors about the folder.

    Raises:
        OSError: the folder could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of `_check_place`
            raise
        raise OSError(error.errno, f"--folder {folder}: {error.strerror}; give another --folder") from error


def _check_place(folder: Path, overwrite: bool) -> None:
    """Refuse to write over files in a folder, unless they are an export that may be replaced.

    Raises:
        FileExistsError: the path holds something that is no export, or an export that is not to be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        raise FileExistsError(f"{folder} exists and is not an export, so it is not replaced: give another --folder")
    if not overwrite:
        raise FileExistsError(f"{folder} holds an export: give --overwrite to replace it, or another --folder")
