"""The networks that ``litscale bench fractal`` compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lit_models import load_run
from litscale.models.fractal import Fractal
from litscale.models.fractal.variants import kinds, variant


@dataclass(frozen=True)
class Networks:
    """The networks that are compared, which differ in what generates their patches.

    Raises:
        ValueError: the other one has the config's generators or mixed ones, or there is a draft without its target.

    Attributes:
        own: that of the config.
        trained: whether it has weights of a run; a network that has none is as wide as it is asked for.
        other: a trained one whose generators are the other ones, if there is one.
        draft: that which guesses, if there is one.
    """

    own: Fractal
    trained: bool
    other: Fractal | None = None
    draft: Fractal | None = None

    def __post_init__(self) -> None:
        if self.other is not None and kinds(self.other) not in self._others():
            raise ValueError(
                f"other_checkpoint is of a network with generators {kinds(self.other)}; give one that is AR or MAR on "
                "every level, and not the config's own"
            )
        if self.draft is not None and "AR" not in self.trained_ones():
            raise ValueError("draft_checkpoint: only trained weights of an AR network are drafted for, give their file")

    @property
    def generators(self) -> dict[str, list[str]]:
        """The generators of all networks: those that are AR or MAR on every level, and the config's own."""
        own, levels = kinds(self.own), len(self.own.levels)
        found = {name: [name.lower()] * levels for name in ("AR", "MAR")}
        return found if own in found.values() else found | {"configured": own}

    @property
    def patches(self) -> int:
        """Patches of the first level of the config's own canvas."""
        (height, width), patch = self.own.sizes[0], self.own.levels[0].patch
        return height // patch[0] * (width // patch[1])

    @property
    def weights(self) -> str:
        """In words, which networks have which weights."""
        trained = self.trained_ones()
        return ", ".join(f"{name}: {'trained' if name in trained else 'random'} weights" for name in self.generators)

    def _others(self) -> list[list[str]]:
        return [levels for levels in self.generators.values() if levels != kinds(self.own)]

    def given(self) -> list[Fractal]:
        """The networks that there are before any is made."""
        return [network for network in (self.own, self.other, self.draft) if network is not None]

    def trained_ones(self) -> dict[str, Fractal]:
        """The trained networks by their names."""
        given = [network for network in (self.own if self.trained else None, self.other) if network is not None]
        return {name: each for each in given for name, levels in self.generators.items() if levels == kinds(each)}

    def at(self, width: int) -> dict[str, Fractal]:
        """All networks for canvases of so many columns; those without trained weights have random ones."""
        found = self.trained_ones()
        return {
            name: found[name] if name in found else variant(self.own, levels, width)
            for name, levels in self.generators.items()
        }

    def width(self, patches: int) -> int:
        """Columns of a canvas of so many patches of the first level.

        Raises:
            ValueError: they fill no canvas of the networks' height, or are more than trained networks have places for.
        """
        (height, _), patch = self.own.sizes[0], self.own.levels[0].patch
        rows = height // patch[0]
        if patches < 1 or patches % rows:
            raise ValueError(f"patches must be multiples of {rows}, the patches of a column, not {patches}")
        for network in self.trained_ones().values():
            try:
                network.levels[0].generator.check_grid((rows, patches // rows))
            except ValueError as error:
                raise ValueError(
                    f"patches {patches} are too many for trained weights: {error}; or leave out the checkpoints, and "
                    "measure random weights"
                ) from error
        return patches // rows * patch[1]


def load_network(option: str, path: str | None, like: Fractal) -> Fractal | None:
    """The network of a run that is compared with another one.

    Args:
        option: the name of the path, for messages.
        path: a checkpoint in its run folder, beside whose folder config.yaml lies; None for none.
        like: the other network.

    Raises:
        FileNotFoundError: there is no such file, or it is not in a run folder.
        ValueError: the run cannot be read, or its network is of other canvases.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} {path}: no such file; give FOLDER/checkpoints/NAME.ckpt of a run")
    try:
        network = load_run(Path(path).resolve().parent.parent, path).network
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{option} {path}: {error}") from error
    if not isinstance(network, Fractal):
        raise ValueError(f"{option} {path} is of a {type(network).__name__}, not of litscale.models.fractal.Fractal")
    for name, ours, theirs in (
        ("sizes", like.sizes, network.sizes),
        ("codec", like.codec, network.codec),
        ("num_classes", like.num_classes, network.num_classes),
    ):
        if ours != theirs:
            raise ValueError(f"{option} {path}: its {name} must be those of the config, {ours}, not {theirs}")
    return network.to(like.no_class.device)
