"""`JSBChorales`: the benchmark's chorales, from the file that papers train and score on, with its splits.

The file is ``Jsb16thSeparated.json`` of https://github.com/czhuang/JSB-Chorales-dataset, which is not part of litscale:
``{"train": [piece, ...], "valid": [...], "test": [...]}``, where a piece is a list of steps of a sixteenth note, and a
step the MIDI pitches of soprano, alto, tenor and bass, -1 for a rest. The splits are those of Boulanger-Lewandowski et
al. (ICML 2012). It does not tell a held note from a repeated one, and has no bar lines; step 0 is the piece's first.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.rolls.source import RollSource
from litscale.music.roll import PITCHES, Roll, RollFormat
from litscale.storage.files import read_json

SPLITS = {"train": "train", "valid": "val", "test": "test"}  # the file's -> ours
LOWEST, HIGHEST = 36, 81  # MIDI pitches of all pieces
VOICES = 4
STEPS_PER_BEAT = 4
REST = -1


class JSBChorales(RollSource):
    """The chorales of ``Jsb16thSeparated.json``: binary rolls of what sounds, in the file's splits.

    A file need not have a test split. No piece is ever left out, so that all scores are of the same pieces.

    Args:
        path: The file.
    """

    items = "chorales"
    voices = VOICES

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()

    def names(self) -> list[str]:
        """Return the chorales, such as ``train/17``, numbered as in the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not as described above; the message names the piece.
        """
        return [f"{split}/{number}" for split, pieces in self._pieces.items() for number in range(len(pieces))]

    def read(self, name: str, form: RollFormat) -> Roll:
        """Read a chorale.

        Raises:
            ValueError: the format is not binary sixteenths.
        """
        if form.encoding != "binary" or form.steps_per_beat != STEPS_PER_BEAT:
            raise ValueError(
                f"{name}: the file holds what sounds at each sixteenth and no onsets: set encoding to binary and "
                f"steps_per_beat to {STEPS_PER_BEAT}"
            )
        split, number = name.split("/")
        pitches = self._pieces[split][int(number)]
        symbols = np.zeros((PITCHES, len(pitches)), np.uint8)
        step, voice = np.nonzero(pitches != REST)
        symbols[pitches[step, voice], step] = 1
        return Roll(symbols, form)

    def fingerprint(self) -> str:
        """Return a hash of the file; raises as `names` does."""
        self.names()
        return sha256(self.path.read_bytes()).hexdigest()

    def splits(self) -> dict[str, str]:
        """Return the file's own splits; raises as `names` does."""
        return {name: SPLITS[name.split("/")[0]] for name in self.names()}

    def __getstate__(self) -> dict[str, Any]:
        # what reads a piece in another process opens the file itself
        return {"path": self.path}

    @cached_property
    def _pieces(self) -> dict[str, list[np.ndarray]]:
        """The pieces of each split under the file's own names of the splits, MIDI pitches, int64 ``[step, voice]``."""
        try:
            content = read_json(self.path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"source.path: there is no file {self.path}; get Jsb16thSeparated.json from "
                "https://github.com/czhuang/JSB-Chorales-dataset"
            ) from error
        if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in ("train", "valid")):
            raise ValueError(
                f"source.path: {self.path} has no lists named train and valid, so it is not Jsb16thSeparated.json"
            )
        if not isinstance(content.setdefault("test", []), list):
            raise ValueError(f"source.path: {self.path} has no list of pieces named test, but {content['test']!r:.40}")
        return {
            split: [self._pitches(f"{split}/{number}", piece) for number, piece in enumerate(content[split])]
            for split in SPLITS
        }

    def _pitches(self, name: str, piece: object) -> np.ndarray:
        """Check a piece, and return its pitches."""
        where = f"source.path: {self.path}: {name}"
        try:
            pitches = np.array(piece)
        except ValueError as error:  # steps of different lengths
            raise ValueError(f"{where} is not a list of steps of {VOICES} whole numbers") from error
        numbers = pitches.dtype.kind in "if" and pitches.ndim == 2 and pitches.shape[1] == VOICES
        if not numbers or (pitches != np.floor(pitches)).any():
            raise ValueError(f"{where} is not a list of steps of {VOICES} whole numbers")
        step, voice = np.nonzero((pitches != REST) & ((pitches < LOWEST) | (pitches > HIGHEST)))
        if len(step):
            raise ValueError(
                f"{where} has the pitch {pitches[step[0], voice[0]]:g} at step {step[0]}, which is not in "
                f"{LOWEST}..{HIGHEST} and no rest ({REST})"
            )
        return pitches.astype(np.int64)
