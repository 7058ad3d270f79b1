"""The networks that ``litscale bench fractal`` compares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from lit_models.companions import load_companion
from litscale.models.fractal import Fractal
from litscale.models.fractal.compatibility import SYMBOLS, check_draft, check_same
from litscale.models.fractal.variants import kinds, variant


@dataclass(frozen=True)
class Networks:
    """The networks that are compared, which differ in the generators of their patches.

    Attributes:
        own: the network of the config.
        trained: whether it has weights of a run; networks without such weights can be made in any width.
        other: a trained network with the other generators, if there is one.
        draft: the network that guesses, if there is one.
    """

    own: Fractal
    trained: bool
    other: Fractal | None = None
    draft: Fractal | None = None

    @property
    def generators(self) -> dict[str, list[str]]:
        """Network -> generators of its levels: AR and MAR on every level, and the config's own if they are mixed."""
        own, levels = kinds(self.own), len(self.own.levels)
        uniform = {name: [name.lower()] * levels for name in ("AR", "MAR")}
        return uniform if own in uniform.values() else uniform | {"configured": own}

    @property
    def patches(self) -> int:
        """The number of patches of the first level of the config's own canvas."""
        (height, width), patch = self.own.sizes[0], self.own.levels[0].patch
        return height // patch[0] * (width // patch[1])

    @property
    def weights(self) -> str:
        """A text that says which networks have trained and which have random weights."""
        trained = self.trained_ones()
        return ", ".join(f"{name}: {'trained' if name in trained else 'random'} weights" for name in self.generators)

    def given(self) -> list[Fractal]:
        """Return the networks that were given: the config's, the other one and the draft."""
        return [network for network in (self.own, self.other, self.draft) if network is not None]

    def trained_ones(self) -> dict[str, Fractal]:
        """Return name -> network for the trained networks."""
        given = [network for network in (self.own if self.trained else None, self.other) if network is not None]
        return {name: each for each in given for name, levels in self.generators.items() if levels == kinds(each)}

    def at(self, width: int) -> dict[str, Fractal]:
        """Return name -> network for canvases of ``width`` columns; untrained networks have random weights."""
        loaded = self.trained_ones()
        return {
            name: loaded[name] if name in loaded else variant(self.own, levels, width)
            for name, levels in self.generators.items()
        }

    def width(self, patches: int) -> int:
        """Return the number of columns of a canvas that has a number of patches of the first level.

        Raises:
            ValueError: the patches fill no canvas of the networks' height, or trained networks have fewer places.
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


def load_networks(own: Fractal, trained: bool, other: str | None, draft: str | None) -> Networks:
    """Return the config's network together with those of other runs.

    Args:
        own: the config's network.
        trained: whether it has weights of a run.
        other: the run of a network with the other generators, see :func:`lit_models.companions.load_companion`.
        draft: the run of a network that guesses for the AR one.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: a network does not fit, or the AR network that a draft is to guess for has random weights.
    """
    networks, device = Networks(own, trained), own.no_class.device
    if other is not None:
        loaded = load_companion("other_checkpoint", other, partial(_check_other, networks)).to(device)
        networks = replace(networks, other=loaded.requires_grad_())
    if draft is not None:
        if "AR" not in networks.trained_ones():
            raise ValueError(f"draft_checkpoint {draft}: the AR network that it guesses for has random weights")
        check = partial(check_draft, networks.trained_ones()["AR"], parallel=1)
        networks = replace(networks, draft=load_companion("draft_checkpoint", draft, check).to(device))
    return networks


def _check_other(networks: Networks, other: Fractal) -> None:
    """Refuse, by a ValueError, a network for other canvases, or one with the config's generators or mixed ones."""
    check_same("other network", networks.own, other, SYMBOLS)
    if kinds(other) == kinds(networks.own) or kinds(other) not in networks.generators.values():
        raise ValueError(
            f"the other network has generators {kinds(other)}, and must be AR or MAR throughout, unlike the config's"
        )
