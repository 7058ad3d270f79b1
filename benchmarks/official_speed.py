"""Speed of the official code and of litscale with the same weights: a training step and sampling, as ratios.

    python benchmarks/official_speed.py --official PATH [--model fractalar_in64] [--patches 4] [--threads 1]

PATH is a clone of FractalGen (github.com/LTH14/fractalgen) or of VAR (github.com/FoundationVision/VAR); which one, its
files tell. Its code is imported from there, and nothing of it is copied: on a CPU ``.cuda()`` does nothing meanwhile.
MAR (github.com/LTH14/mar) is refused, as litscale has no network with its weights. Weights are random. The networks are
the published ones; --patches (of a side of the first level), --patch-nums, --widths, --blocks and --depth make them
smaller. Prints a Markdown table: medians, and the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measuring import cpu_now, now, option_parser, paired, ratio, surroundings
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.cli.allocator import keep_freed_memory
from litscale.models.fractal import Fractal, Generation, generate, load_official
from litscale.models.fractal.presets import PRESETS as FRACTALS
from litscale.models.var import PRESETS as VARS
from litscale.models.var import VAR, VARGeneration, load_official_var, load_official_vqvae
from litscale.models.var import generate as generate_var

FILES = {  # of each repository, those by which it is known; FractalGen has a models/mar.py, too
    "FractalGen": ("models/fractalgen.py", "models/pixelloss.py"),
    "VAR": ("models/var.py", "models/vqvae.py"),
    "MAR": ("models/mar.py", "models/diffloss.py"),
}
ITERATIONS = {2: [64, 16], 3: [64, 16, 16]}  # published MAR steps, by the number of levels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the colours that FractalGen is given


class Comparison(NamedTuple):
    """What is compared, and how.

    Attributes:
        networks: the networks, in words.
        runs: what is done -> by whom -> what does it.
        difference: largest difference of a result that both compute, to see that they are the same network; None where
            none can be compared.
    """

    networks: str
    runs: dict[str, dict[str, Callable[[], object]]]
    difference: float | None


def detect(folder: Path) -> str:
    """Return which repository a folder holds.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds none of them, or one that cannot be compared.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--official {folder}: no such folder; give a clone of FractalGen or VAR")
    found = [name for name, files in FILES.items() if all((folder / file).is_file() for file in files)]
    if not found:
        known = "; ".join(f"{name} has {' and '.join(files)}" for name, files in FILES.items() if name != "MAR")
        raise ValueError(f"--official {folder} is no clone of FractalGen or VAR: {known}")
    if found == ["MAR"]:
        raise ValueError(
            f"--official {folder} is MAR, whose continuous tokens a diffusion network draws: no network of litscale "
            "takes its weights. The masked generator of litscale is FractalGen's: give a clone of that, and --model "
            "fractalmar_in64"
        )
    return found[0]


@contextmanager
def without_cuda() -> Iterator[None]:
    """Make ``.cuda()`` of tensors and modules return them as they are."""
    before = {kind: kind.cuda for kind in (Tensor, nn.Module)}
    for kind in before:
        kind.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, method in before.items():
            kind.cuda = method  # type: ignore[method-assign]


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make the modules of a folder importable, and forget them afterwards.

    Raises:
        ModuleNotFoundError: they import what is not installed.
    """
    path, before = str(folder.resolve()), set(sys.modules)
    tops = {each.stem for each in folder.iterdir()}
    sys.path.insert(0, path)
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the official code imports {error.name}, which is not installed: pip install {error.name}"
        ) from error
    finally:
        sys.path.remove(path)
        for name in sys.modules.keys() - before:
            if name.partition(".")[0] in tops:
                del sys.modules[name]


def fractalgen(options: argparse.Namespace) -> Comparison:
    """Set up FractalGen's network and ours: training as the official engine does it, sampling with its options."""
    from models.fractalgen import FractalGen

    # 1. the networks
    name = options.model or "fractalar_in64"
    arguments = dict(FRACTALS[name])
    sides = list(arguments["img_size_list"])
    sides[0] = sides[1] * options.patches if options.patches else sides[0]
    arguments |= {"img_size_list": sides}
    arguments |= {"embed_dim_list": options.widths} if options.widths else {}
    arguments |= {"num_blocks_list": options.blocks} if options.blocks else {}
    official = FractalGen(**arguments, fractal_level=0).to(options.device)
    ours = load_official(official.state_dict(), arguments).to(options.device)
    # 2. the same images
    batch, device, levels = options.batch, options.device, len(sides) - 1
    canvas = torch.randint(0, 256, (batch, 3, sides[0], sides[0]), dtype=torch.uint8, device=device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    images = (canvas / 255 - mean) / std
    label = torch.arange(batch, device=device) % arguments["class_num"]

    def train(loss: Callable[[], Tensor], model: nn.Module) -> None:
        model.train()
        loss().backward()
        model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def sample_official() -> None:
        official.eval()
        classes = official.class_emb(label)
        if options.cfg != 1:
            classes = torch.cat([classes, official.fake_latent.repeat(batch, 1)])
        official.sample(
            [classes] * arguments["num_conds"], ITERATIONS[levels], options.cfg, "linear", 1.0, 1e-4, fractal_level=0
        )

    def sample(decoding: str) -> None:
        generate(ours, label, Generation(ITERATIONS[levels], cfg=options.cfg, decoding=decoding), seed=0)

    # 3. what is done
    sampling: dict[str, Callable[[], object]] = {"official": sample_official, "litscale": lambda: sample("sequential")}
    if Generation(decoding="jacobi").parallel_depth(ours) < levels:
        sampling["litscale, jacobi"] = lambda: sample("jacobi")
    training: dict[str, Callable[[], object]] = {
        "official": lambda: train(lambda: official(images, label), official),
        "litscale": lambda: train(lambda: ours(canvas, label).loss, ours),
    }
    networks = f"{name}, {sides[0]} px, widths {arguments['embed_dim_list']}, blocks {arguments['num_blocks_list']}"
    runs = {"training step": training, f"sampling, cfg {options.cfg:g}": sampling}
    return Comparison(networks, runs, likelihood_difference(official, ours, images, canvas, label))


@torch.no_grad()
def likelihood_difference(
    official: nn.Module, ours: Fractal, images: Tensor, canvas: Tensor, label: Tensor
) -> float | None:
    """Return the difference of the likelihoods without classes, in nats per symbol; None if MAR's masks are random."""
    if not ours.exact_likelihood:
        return None
    nats = ours.nll(canvas).mean() / canvas[0].numel()
    return abs(official.eval()(images, label).item() - nats.item())


def var(options: argparse.Namespace) -> Comparison:
    """Set up VAR's networks and ours: cross-entropies of all scales, and sampling with its published filters."""
    import models

    # 1. the networks
    name = options.model or "var_d16"
    arguments = dict(VARS[name])
    depth = options.depth or arguments["depth"]
    sides = tuple(options.patch_nums or arguments["patch_nums"])
    arguments |= {"depth": depth, "patch_nums": sides, "embed_dim": 64 * depth, "num_heads": depth}
    arguments |= {"attn_l2_norm": True}
    tokenizer = {"vocab_size": 4096, "z_channels": 32, "ch": options.channels, "v_patch_nums": sides}
    official_vqvae = models.VQVAE(**tokenizer, test_mode=True).to(options.device)
    official = models.VAR(vae_local=official_vqvae, **arguments).to(options.device)
    # larger than published, so that what blocks compute counts in the logits that are compared
    official.init_weights(init_adaln=0.5, init_adaln_gamma=0.5, init_head=1, init_std=-1)
    vqvae = load_official_vqvae(official_vqvae.state_dict(), tokenizer)
    ours = load_official_var(official.state_dict(), vqvae, arguments).to(options.device)
    vqvae.to(options.device)
    # 2. the same tokens
    batch, device = options.batch, options.device
    label = torch.arange(batch, device=device) % ours.num_classes
    given = torch.randn(batch, ours.length - sides[0] ** 2, 32, device=device)
    tokens = torch.randint(0, 4096, (batch, ours.length), device=device)

    def train(model: nn.Module) -> None:
        model.train()
        F.cross_entropy(model(label, given).flatten(0, 1), tokens.flatten()).backward()
        model.zero_grad(set_to_none=True)

    def sample_official() -> None:
        official.eval()
        official.autoregressive_infer_cfg(batch, label, g_seed=0, cfg=options.cfg, top_k=900, top_p=0.96)

    def sample() -> None:
        generate_var(ours, label, VARGeneration(options.cfg, top_k=900, top_p=0.96), seed=0)

    # 3. what is done
    runs: dict[str, dict[str, Callable[[], object]]] = {
        "training step": {"official": lambda: train(official), "litscale": lambda: train(ours)},
        f"sampling, cfg {options.cfg:g}": {"official": sample_official, "litscale": sample},
    }
    networks = f"{name}, depth {depth}, scales {sides}, tokenizer of {options.channels} channels"
    return Comparison(networks, runs, logits_difference(official, ours, label, given))


@torch.no_grad()
def logits_difference(official: Any, ours: VAR, label: Tensor, given: Tensor) -> float:
    """Return the largest difference of the logits of all scales."""
    share, official.cond_drop_rate = official.cond_drop_rate, 0.0  # else labels are dropped in evaluation, too
    difference = (official.eval()(label, given) - ours.eval()(label, given)).abs().max().item()
    official.cond_drop_rate = share
    return difference


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--official", type=Path, required=True, help="folder of the clone")
    parser.add_argument("--model", choices=[*FRACTALS, *(name for name in VARS if name.startswith("var"))])
    parser.add_argument("--patches", type=int, help="FractalGen: patches of a side of the first level")
    parser.add_argument("--widths", type=int, nargs="+", help="FractalGen: of each level and of the leaf")
    parser.add_argument("--blocks", type=int, nargs="+", help="FractalGen: of each level and of the leaf")
    parser.add_argument("--depth", type=int, help="VAR: blocks")
    parser.add_argument("--patch-nums", type=int, nargs="+", help="VAR: the scales")
    parser.add_argument("--channels", type=int, default=160, help="VAR: of the tokenizer")
    parser.add_argument("--cfg", type=float, help="guidance; FractalGen: 1 is off, VAR: 0 is off")
    parser.add_argument("--skip", choices=["training", "sampling"], help="leave this out")
    parser.add_argument("--batch", type=int, default=1, help="images of a training step and of a call that samples")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in which both codes take turns")
    options = parser.parse_args()
    try:
        kind = detect(options.official)
        if options.model and options.model not in (FRACTALS if kind == "FractalGen" else VARS):
            raise ValueError(f"--model {options.model} is no network of {kind}")
        if min(options.batch, options.threads, options.repeats) < 1:
            raise ValueError("--batch, --threads and --repeats must be at least 1")
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    options.cfg = {"FractalGen": 1.0, "VAR": 1.5}[kind] if options.cfg is None else options.cfg
    keep_freed_memory()  # else the pages of a step's gradients are the system's work, for whoever comes second
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch.cuda.amp, which the official code uses
    try:
        with importable(options.official), without_cuda() if options.device == "cpu" else nullcontext():
            compare(kind, options)
    except ModuleNotFoundError as error:
        parser.error(str(error))


def compare(kind: str, options: argparse.Namespace) -> None:
    """Print the table of a repository."""
    comparison = {"FractalGen": fractalgen, "VAR": var}[kind](options)
    print(f"{kind}: {comparison.networks}, batch {options.batch}; median of {options.repeats} runs in turn")
    difference = comparison.difference
    compared = "none compared, as MAR's masks are random" if difference is None else f"{difference:.1e}"
    print(f"{surroundings(options.device)}; difference of results: {compared}\n")
    print("| what | who | seconds | / official |\n| --- | --- | --- | --- |")
    clock = cpu_now if options.threads == 1 else now
    for what, runs in comparison.runs.items():
        if options.skip and what.startswith(options.skip):
            continue
        times = paired(runs, options.repeats, options.device, clock=clock)
        for who, measured in times.items():
            share = ratio(measured, times["official"])
            print(f"| {what} | {who} | {statistics.median(measured):.3g} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
