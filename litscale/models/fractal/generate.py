"""Generation down the recursion, from coarse patches to single cells (FractalGen, arXiv 2502.17437).

Dimensions: B canvases, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.compiler import set_stance
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.compatibility import check_draft
from litscale.models.fractal.compiled import check_compiler
from litscale.models.fractal.drawing import Canvases, Drawing
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.generation_options import Generation
from litscale.models.fractal.generation_recursion import Draft, OnStep, Recursion
from litscale.models.fractal.generation_report import GenerationReport
from litscale.models.keyed import cell_keys
from litscale.models.labels import check_labels
from litscale.models.modes import evaluating
from litscale.models.prepared import prepared_layers
from litscale.models.small_weights import small_weights

PLAIN = Generation()


@torch.no_grad()
def generate(
    model: Fractal,
    label: Tensor | None = None,
    options: Generation = PLAIN,
    *,
    batch_size: int = 1,
    canvas: Tensor | None = None,
    known: Tensor | None = None,
    length: int | None = None,
    window: int | None = None,
    seed: int | None = None,
    index: Tensor | None = None,
    start: Tensor | None = None,
    on_step: OnStep | None = None,
    draft: Fractal | None = None,
    report: GenerationReport | None = None,
) -> Tensor:
    """Generate canvases of any width.

    A width that is not a multiple of the first level's patch is padded for the model and cut again. A canvas wider than
    the window is filled from left to right, window by window, each with what is already there as known context.

    The noise of a cell is keyed by the seed, the number of the canvas and the cell's place. A sample is therefore the
    same alone, in any batch and by any exact way of decoding.

    Args:
        model: the network, whose dropout is off meanwhile.
        label: int64 ``[B]``, -1 or none for no class.
        options: how symbols are drawn, and in which order.
        batch_size: B, where neither label nor canvas gives it.
        canvas: uint8 ``[B, C, H, W]``, whose known cells are kept.
        known: bool ``[B, C, H, W]`` (or ``[B, 1, H, W]``), True for cells that are given. They are context from the
            first step wherever the levels can see them: an AR level sees what comes earlier in its scan order, a MAR
            level sees all.
        length: W where no canvas is given; the model's own by default.
        window: columns that are generated at once, the model's own number by default; a first level with positions
            ``rope`` takes more.
        seed: seed of the noise; None draws one from torch's generator.
        index: number of each canvas, int64 ``[B]``; 0, 1, ... without it.
        start: number of each canvas' first column within its piece, int64 ``[B]``, for networks with ``periods``; 0
            without.
        on_step: called after each step of the first level with the whole canvas so far and the bool mask of its
            finished cells, both ``[B, C, H, W]``.
        draft: a smaller network of the same sizes, codec, classes and scan, which guesses patches that are decoded in
            parallel, if the option ``guess`` says so.
        report: counts what parallel decoding does.

    Returns:
        uint8 ``[B, C, H, W]`` on the model's device.

    Raises:
        ValueError: options or shapes that do not fit the model.
    """
    # 1. read the request: the canvas, and which of its cells are known
    parallel = options.parallel_depth(model)
    if options.guess == "draft":
        if draft is None:
            raise ValueError("guess 'draft' needs a smaller network that drafts: give one, or guess 'repeat'")
        check_draft(model, draft, parallel)
    if options.compile:
        check_compiler(model.no_class.device.type)
    device, (height, width), patch = model.no_class.device, model.sizes[0], model.levels[0].patch[1]
    if canvas is None:
        if known is not None:
            raise ValueError("known needs the canvas whose cells are known")
        if length is not None and length < 1:
            raise ValueError(f"length must be at least 1, not {length}")
        rows = batch_size if label is None else len(label)
        canvas = torch.zeros(rows, model.codec.channels, height, length or width, dtype=torch.uint8)
    length = canvas.shape[-1]
    known = torch.zeros_like(canvas, dtype=torch.bool) if known is None else known.expand_as(canvas)
    _check_request(model, label, canvas=canvas, known=known, window=window, index=index, start=start)
    # which cells are known is read on the host; the windows are chosen there
    known = F.pad(known.cpu(), (0, -length % patch)).clone()
    canvas = F.pad(canvas.to(device), (0, -length % patch)).masked_fill(~known.to(device), 0)
    begin = torch.zeros(len(canvas), dtype=torch.long, device=device) if start is None else start.to(device)
    # 2. key the noise of every cell
    numbers = torch.arange(len(canvas), device=device) if index is None else index.to(device)
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    keys = cell_keys(seed, numbers, height, canvas.shape[3])
    report = GenerationReport() if report is None else report
    networks = [model] if options.guess != "draft" or draft is None else [model, draft]
    with ExitStack() as modes:
        modes.enter_context(small_weights(torch.nn.ModuleList(networks), options.weights))  # drafts may be too small
        for network in networks:
            modes.enter_context(evaluating(network))
            modes.enter_context(set_stance("default") if options.compile else prepared_layers(network))
        for members, part in _windows(known, length, window or width, patch):
            row: Tensor | slice = slice(None) if len(members) == len(canvas) else torch.tensor(members, device=device)
            old, held = canvas[row][..., part], known[members][..., part]
            # 3. the conditions of the first level: classes, and "no class" where guidance is on
            named = None if label is None else label.to(device)[row]
            labels = [named] if options.cfg == 1 else [named, None]
            conditions = [torch.cat([network.root(old, x) for x in labels]) for network in networks]
            # 4. fill the window down the recursion
            given = held.to(device) if held.any() else None
            cfg = None if options.cfg == 1 else options.cfg
            work = Canvases(
                symbols=old,
                known=given,
                keys=keys[row][..., part],
                conditions=conditions[0],
                cfg=cfg,
                start=begin[row] + part.start,
            )
            drafts = [Draft(Drawing(draft, options, report.drafts()), conditions[1]) for draft in networks[1:]]
            recursion = Recursion(Drawing(model, options, report), parallel, *drafts)
            show = None if on_step is None else _whole(on_step, canvas, known, row=row, part=part, length=length)
            canvas[row, ..., part] = recursion.fill(0, work, show)[0]
            # 5. the next window has it as known context
            known[members, ..., part] = True
    return canvas[..., :length]


def _check_request(
    model: Fractal,
    label: Tensor | None,
    *,
    canvas: Tensor,
    known: Tensor,
    window: int | None,
    index: Tensor | None,
    start: Tensor | None,
) -> None:
    """Refuse a request that cannot be generated correctly, or would never end, with a ValueError."""
    if canvas.dtype != torch.uint8 or known.dtype != torch.bool:
        raise ValueError(f"canvas must be uint8 and known bool, not {canvas.dtype} and {known.dtype}")
    if label is not None and model.num_classes:
        check_labels(label.cpu(), model.num_classes)
    if label is not None and len(label) != len(canvas):
        raise ValueError(f"there are {len(label)} labels for {len(canvas)} canvases")
    for name, given in (("index", index), ("start", start)):
        if given is not None and len(given) != len(canvas):
            raise ValueError(f"{name} has {len(given)} numbers for {len(canvas)} canvases")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if bool((canvas[known] > model.codec.alphabet - 1).any()):  # 256 itself is no uint8
        raise ValueError(f"known cells must be in 0..{model.codec.alphabet - 1}, the symbols of the model's codec")


def _windows(known: Tensor, length: int, width: int, patch: int) -> Iterator[tuple[list[int], slice]]:
    """Yield the canvases and the columns, at most ``width``, to fill next, until the first ``length`` are known.

    Half of a window lies before the first unknown column, less at the beginning of the canvas and more at its end. It
    begins with a whole patch. A canvas has the same windows as if it were alone; canvases with the same window are
    filled together.
    """
    while not bool(known[..., :length].all()):
        unknown = (~known[..., :length]).flatten(1, 2).any(1)  # [B, length]
        starts = []
        for first, left in zip(unknown.int().argmax(1).tolist(), unknown.any(1).tolist(), strict=True):
            start = max(0, min(first - width // 2, known.shape[3] - width)) // patch * patch
            start = max(start, (first // patch + 1) * patch - width)  # a window of one patch has no room for context
            starts.append(start if left else known.shape[3])
        start = min(starts)
        # a canvas that is full goes along where there is one window, and changes nothing
        rows = [row for row, own in enumerate(starts) if own == start or known.shape[3] <= width]
        yield rows, slice(start, start + width)


def _whole(on_step: OnStep, canvas: Tensor, known: Tensor, *, row: Tensor | slice, part: slice, length: int) -> OnStep:
    """Wrap a step callback so that it is given the whole canvas instead of the window."""

    def show(window: Tensor, done: Tensor) -> None:
        shown, finished = canvas.clone(), known.to(canvas.device, copy=True)
        shown[row, ..., part], finished[row, ..., part] = window, done
        on_step(shown[..., :length], finished[..., :length])

    return show
