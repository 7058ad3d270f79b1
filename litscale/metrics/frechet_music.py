"""The Frechet music distance: that of the Gaussians of CLaMP 2's features of two sets of MIDI files.

It is computed by the package ``frechet-music-distance`` (Retkowski, Stepniak and Modrzejewski, arXiv 2412.07948), which
litscale does not need otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from litscale.music import Roll, write_midi

RELEASE = "https://huggingface.co/sander-wood/clamp2"


class FrechetMusicDistance:
    """The distance with features of CLaMP 2, whose weights are read from a file.

    Args:
        weights: The weights file of CLaMP 2, as its authors publish it. The package also needs the files of its text
            model, ``FacebookAI/xlm-roberta-base``, where the package transformers keeps what it has downloaded.

    Raises:
        ModuleNotFoundError: The package is not installed; the message says how it is.
        FileNotFoundError: There is no such file; the message says where to get it.
    """

    def __init__(self, weights: str) -> None:
        self.weights = Path(weights).expanduser()
        if not self.weights.is_file():
            raise FileNotFoundError(f"there are no weights of CLaMP 2 at {self.weights}: get them from {RELEASE}")
        try:
            import frechet_music_distance as package
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the Frechet music distance needs another package: pip install 'frechet-music-distance>=1' (or "
                "litscale[frechet-music-distance])"
            ) from error
        self._package = package

    def __call__(self, generated: Sequence[Roll], data: Sequence[Roll]) -> float:
        """Return the distance of two sets of rolls, each of which is written as a MIDI file first.

        Raises:
            ValueError: The file does not hold weights of CLaMP 2.
        """
        with TemporaryDirectory(prefix="litscale-") as folder:
            parts = {"generated": generated, "data": data}
            for part, rolls in parts.items():
                Path(folder, part).mkdir()
                for number, roll in enumerate(rolls):
                    write_midi(roll, Path(folder, part, f"{number:06d}.mid"))
            measure = self._package.FrechetMusicDistance(self._extractor(), verbose=False)
            return float(measure.score(*(str(Path(folder, part)) for part in ("data", "generated"))))

    def _extractor(self) -> Any:
        """Return CLaMP 2 with the weights of the file."""
        from frechet_music_distance.models.clamp2 import clamp2_extractor

        weights = self.weights

        class LocalExtractor(clamp2_extractor.CLaMP2Extractor):
            def _download_checkpoint(self) -> None:
                # The package downloads other weights where it cannot read those that are there.
                raise ValueError(f"{weights} does not hold the weights of CLaMP 2 ({RELEASE})")

        clamp2_extractor.config.CLAMP2_WEIGHTS_PATH = weights
        return LocalExtractor(verbose=False)
