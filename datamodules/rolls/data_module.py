"""`PianoRollDataModule`: pieces of any `RollSource` as batches of symbol canvases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader

from datamodules.base import RankedDataModule
from datamodules.loading import ResumableLoader
from datamodules.messages import abridged, check_least
from datamodules.requests import RequestRecord, Requests, recorded
from datamodules.rolls.cache import RollCache
from datamodules.rolls.classes import PieceClasses, number_of
from datamodules.rolls.midi_folder import LONGEST, MidiFolder, MidiReader
from datamodules.rolls.requests import GenerationRequest, request_canvas
from datamodules.rolls.source import CachedPieces, RollSource
from datamodules.rolls.splits import Splits
from datamodules.rolls.whole_pieces import RollEvaluation, WholePieces
from datamodules.rolls.windows import ConsecutiveWindows, Pieces, RandomCrops
from litscale import music
from litscale.music.audio import PIANO, Sound
from litscale.music.roll import PITCHES, Roll, RollFormat
from litscale.storage.fingerprints import of_file

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ()}
SAMPLES = GenerationRequest()
SIDE_BY_SIDE = RollEvaluation()


class PianoRollDataModule(RankedDataModule):
    """Piano rolls from a folder of MIDI files, or from any other source.

    A batch is a dict of

    - ``canvas``: uint8 ``[B, 1, H, W]`` of symbols (see `music.RollFormat`), H pitches, row 0 the lowest, W steps,
    - ``start``: int64 ``[B]``, the number of the first step in its piece,
    - ``label``: int64 ``[B]``, with ``labels``,
    - ``beats_per_bar``: float32 ``[B]``, where pieces are not all in the meter of ``format``.

    Batches to predict are described at `datamodules.requests.Requests`.

    Training draws random windows that depend on seed, epoch and index alone: the same for any number of workers, and
    exact when a run resumes in the middle of an epoch. Validation and test go through windows side by side, each once
    over all devices, so devices may differ by one window: log torchmetrics with ``on_epoch=True`` there. (Lightning
    2.6 averages plain numbers with ``sync_dist=True`` wrongly when devices differ: its issue 21859.)

    Pieces shorter than the window are left out (a message counts them); so is, in validation and test, what remains of
    a piece after its last whole window. With ``evaluation.stride`` nothing is left out there: windows overlap, and
    batches have also what is described at `datamodules.rolls.whole_pieces.WholePieces`. A note that the left edge of a
    window cuts begins there as a hold.
    """

    items = "windows"
    more = "a smaller window, more pieces or more samples_per_epoch"

    def __init__(
        self,
        folder: str | None = None,
        *,
        source: RollSource | None = None,
        encoding: Literal["binary", "velocity", "onset_hold"] = "onset_hold",
        steps_per_beat: int = 4,
        velocity_bins: int = 127,
        phase: Literal["auto"] | float = "auto",
        drums: bool = False,
        pedal: bool = False,
        beats_per_bar: float | None = None,
        pitch_range: tuple[int, int] | None = None,
        window: int = 128,
        batch_size: int = 16,
        samples_per_epoch: int | None = None,
        transpose: int = 0,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_files: dict[str, list[str] | str] | None = None,
        labels: bool = False,
        strict: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
        longest: int = LONGEST,
        predict: GenerationRequest = SAMPLES,
        evaluation: RollEvaluation = SIDE_BY_SIDE,
        sound: Sound = PIANO,
    ) -> None:
        """Check the options; nothing is read yet.

        Args:
            folder: folder of MIDI files (.mid, .midi), searched with all its subfolders. Give this or source.
            source: any collection of pieces, such as datamodules.BachChorales or a RollSource of your own.
            encoding: binary (sounding or not), velocity (loudness; repeated notes merge) or onset_hold (where a note
                starts, with its velocity, and where it is held).
            steps_per_beat: grid steps per quarter note; 4 = sixteenths.
            velocity_bins: number of velocity bins, 1 to 127 (127 keeps MIDI velocities as they are).
            phase: offset of the grid of a MIDI file from its ticks, in steps; auto estimates it for each file.
            drums: also read the drum channel, as pitches.
            pedal: let notes of MIDI files ring until the sustain pedal is released or their pitch is struck again.
            beats_per_bar: quarter notes per bar (3 in 6/8, 3.5 in 7/8) of all pieces and samples, for bar lines and
                statistics. With null, pieces use their time signatures, or 4 without any, and samples use those of the
                file to continue, or of most pieces.
            pitch_range: lowest and highest MIDI pitch to keep, both included; [36, 83] gives 48 rows. Notes outside are
                left out and counted. null keeps all 128.
            window: number of steps of a canvas.
            batch_size: number of windows in a batch on each device.
            samples_per_epoch: number of random windows in a training epoch, over all devices; null = the number of
                windows side by side in the training pieces.
            transpose: move each training window by a random number of semitones, at most this many up or down and never
                so far that a note leaves the canvas.
            val_fraction: share of the pieces for validation, chosen by a hash of their names; 0 = no validation. A
                source that is published with splits, such as datamodules.JSBChorales, has its own.
            test_fraction: share of the pieces for the test, chosen in the same way.
            split_files: instead of the fractions, a list for each of train, val and test: names relative to folder, or
                patterns like train/*; or a text file with one of them per line. Pieces in no list are not used.
            labels: use the first-level folder of each piece as its class; classes are sorted by name.
            strict: stop at a file that cannot be read, instead of listing and skipping it.
            num_workers: number of processes that load batches, for each device.
            seed: seed of the random windows.
            cache_dir: folder for the cache of rolls; null = the environment variable LITSCALE_CACHE, or else litscale
                in XDG_CACHE_HOME or ~/.cache. All devices must see it.
            longest: most steps of a MIDI file; a longer file counts as unreadable. A damaged file of 40 bytes can claim
                a length that would fill the memory.
            predict: what `litscale predict` generates.
            evaluation: how validation and test go through the pieces.
            sound: instrument and sound font for WAV files of samples.

        Raises:
            ValueError: an option is impossible, or contradicts another one; the message names it.
        """
        super().__init__()
        if (folder is None) == (source is None):
            given = "both are" if folder is not None else "neither is"
            raise ValueError(
                f"give one of folder (of MIDI files) and source (such as datamodules.BachChorales); {given} given; "
                "null removes one"
            )
        self.reader = MidiReader(phase, drums, pedal, longest)
        self.source = source or MidiFolder(str(folder), self.reader)
        self.cached = CachedPieces(self.source, RollFormat(encoding, steps_per_beat, velocity_bins), cache_dir)
        self.splits = Splits(val_fraction, test_fraction, split_files, self.source.splits)
        self.pitch_range, self.window, self.batch_size = pitch_range, window, batch_size
        self.samples_per_epoch, self.transpose, self.seed = samples_per_epoch, transpose, seed
        self.labels, self.strict, self.num_workers = labels, strict, num_workers
        self.beats_per_bar, self.request, self.evaluation = beats_per_bar, predict, evaluation
        self.sound = sound
        self._given: RollFormat | None = None  # of the file that a request goes on from
        self._label: int | None = None  # that a request asks for
        self._classes = PieceClasses()  # of the pieces once the cache is open, before that of a checkpoint
        self._cache: RollCache | None = None
        self._pieces: dict[str, Pieces] = {}
        self._cells: tuple[np.ndarray, np.ndarray]  # that a request gives, from setup("predict") on
        self._check_options()

    @property
    def format(self) -> RollFormat:
        """What the symbols and rows of a canvas mean. The meter is that of samples, and is known once the data is."""
        form = self.cached.form.with_meter(self.sample_meter(self._label))
        return form if self.pitch_range is None else form.cropped(*self.pitch_range)

    @property
    def renderer(self) -> music.RollRenderer:
        """Turns canvases into files, pictures and sound, and MIDI files into canvases."""
        form = self.format if self._given is None else replace(self.format, tempo=self._given.tempo)
        return music.RollRenderer(form, phase=self.reader.phase, sound=self.sound)

    @property
    def alphabet(self) -> int:
        """Number of symbols."""
        return self.format.alphabet

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        """Channels, rows and steps: (1, H, W)."""
        return (1, self.format.pitches, self.window)

    @property
    def voices(self) -> int | None:
        """How many notes sound at a step; None if the source does not say."""
        return self.source.voices

    @cached_property
    def class_names(self) -> list[str]:
        """Name of each class; empty without ``labels``. Lists the pieces of the source."""
        return sorted(set(self.source.classes(self.source.names()) or ())) if self.labels else []

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without ``labels``."""
        return len(self.class_names)

    @property
    def known_class_names(self) -> list[str]:
        """Name of each class once a split is open or a checkpoint is loaded: prediction must not need the pieces."""
        return self._classes.names

    def prepare_data(self) -> None:
        """Read the pieces into the cache, unless they are there; one process of each node does this.

        Raises:
            FileNotFoundError: no such folder, or no MIDI file in it.
            ValueError: no file can be read.
            OSError: the cache cannot be written.
        """
        # Prediction needs no training data, which may be on another machine.
        if self.trainer is None or self.trainer.state.fn != TrainerFn.PREDICTING:
            self.cached.prepare()

    def setup(self, stage: str) -> None:
        """Open the cache and choose the pieces of a stage.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            FileNotFoundError: no such folder, no MIDI file in it, or `prepare_data` did not run.
            ValueError: a split is empty, all its pieces are shorter than the window, a file cannot be read and
                ``strict`` is set, or the request does not fit; the message names the option.
        """
        self._given, self._label = None, None
        if stage == "predict":
            self._cells = request_canvas(self.request, self.format, self.window, self._read_given)
        for split in STAGE_SPLITS[stage]:
            # Training without validation is possible; validating without it is a mistake.
            if self.splits.wants(split) or stage != "fit":
                self._pieces_of(split)

    def state_dict(self) -> dict[str, Any]:
        """Return what checkpoints keep for prediction without the data: the classes, and the meters of samples."""
        forms = [self.cached.form.with_meter(self.sample_meter(label)) for label in (None, *range(self.num_classes))]
        first, *others = (float(form.beats_per_bar) for form in forms)
        own = {"class_names": self.class_names, "class_beats_per_bar": others} if others else {}
        return {"beats_per_bar": first, **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the pieces have other classes than those of the checkpoint, so that numbers mean other classes.
        """
        trained = PieceClasses.of_state(state_dict)
        if self._cache is None:
            self._classes = trained
        elif self.labels and trained.names and trained.names != self.class_names:
            raise ValueError(
                f"the checkpoint was trained on the classes {abridged(trained.names)}, but the data has "
                f"{abridged(self.class_names)}: give data with the classes of the checkpoint"
            )

    def rolls(self, split: str) -> Iterator[np.ndarray]:
        """Yield the whole pieces of a split (``train``, ``val`` or ``test``) from which its windows are cut.

        Yields:
            uint8 ``[H, steps]``.
        """
        pieces = self._pieces_of(split)
        for piece, steps in zip(pieces.chosen, pieces.lengths, strict=True):
            yield pieces.cache.window(int(piece), 0, int(steps))[pieces.low : pieces.low + pieces.rows]

    def roll_labels(self, split: str) -> list[int]:
        """Return the class of each piece of `rolls`, in the same order; empty without ``labels``."""
        pieces = self._pieces_of(split)
        return list(pieces.labels or ())

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of random windows; see the class."""
        pieces = self._pieces["train"]
        size = self.samples_per_epoch or int((pieces.lengths // self.window).sum())
        data = RandomCrops(pieces, size, self.seed, self.transpose)
        return self.training_loader(data)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of the validation pieces' windows; an empty list if there is no validation split."""
        return self._in_order("val") if "val" in self._pieces else []

    def test_dataloader(self) -> DataLoader:
        """Return the loader of the test pieces' windows."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of the requested batches, each on one device.

        Raises:
            ValueError: there is no such class as requested.
        """
        # Not in `setup`, because a checkpoint, which knows its classes, is loaded after that.
        if self.request.label is not None:
            self._label = number_of(self.request.label, self.known_class_names or self.class_names)
        return self.batches_loader(self._requests())

    def described_request(self) -> RequestRecord:
        """Return the record of what is generated; raises as `recorded` does."""
        font = None if self.sound.font is None else {"file": self.sound.font, "sha256": of_file(self.sound.path)}
        sound = {"instrument": self.sound.name, "font": font}
        requests = self._requests()
        return recorded(self.request, requests, length=requests.canvas.shape[-1], sound=sound)

    def _requests(self) -> Requests:
        """Return the batches of the request, whose class has a number once their loader was made."""
        return Requests(replace(self.request, label=self._label), *self._cells, self.batch_size)

    def _read_given(self, path: str) -> Roll:
        """Read the file that a request starts from as the pieces of a folder are read; its meter and tempo are kept."""
        roll = self.reader.read(path, self.cached.form)
        self._given = roll.format
        return roll

    def _in_order(self, split: str) -> DataLoader:
        """Return a loader that gives each window of a split once."""
        pieces, stride = self._pieces[split], self.evaluation.stride
        data = ConsecutiveWindows(pieces) if stride is None else WholePieces(pieces, stride)
        return self.ordered_loader(data, split)

    def _pieces_of(self, split: str) -> Pieces:
        """Return the pieces of a split, which are chosen once."""
        if split not in self._pieces:
            self._pieces[split] = self._choose(split)
        return self._pieces[split]

    def _choose(self, split: str) -> Pieces:
        """Choose the pieces of a split, and open the cache unless it is open."""
        if self._cache is None:
            self._cache = self.cached.open(self.strict)
            classes = (self.source.classes(self._cache.names) if self.labels else None) or ()
            self._classes = PieceClasses.of_pieces(self._cache.beats_per_bar, self.class_names, classes)
            self._report(self._cache)
        whole = split != "train" and self.evaluation.stride is not None
        chosen = self.splits.pieces(self._cache, split, self.window, short=whole)
        labels = None
        if self.labels:
            classes = self.source.classes([self._cache.names[piece] for piece in chosen]) or []
            labels = [self.class_names.index(name) for name in classes]
        form, meters = self.format, self._cache.beats_per_bar[chosen]
        own_meters = None if self.beats_per_bar is not None or (meters == form.beats_per_bar).all() else meters.tolist()
        return Pieces(
            self._cache,
            chosen,
            window=self.window,
            low=form.lowest_pitch,
            rows=form.pitches,
            labels=labels,
            meters=own_meters,
        )

    def sample_meter(self, label: int | None = None) -> float | None:
        """Return the quarter notes per bar of samples of a class, or of no class; None if they are not known."""
        if self.beats_per_bar is not None:
            return self.beats_per_bar
        if self._given is not None:
            return self._given.beats_per_bar
        return self._classes.meter(label)

    def _report(self, cache: RollCache) -> None:
        """Say, once, what was left out."""
        if cache.errors:
            count = len(cache.errors) + len(cache.names)
            rank_zero_warn(
                f"{len(cache.errors)} of {count} {self.source.items} cannot be read and are skipped:\n"
                + "\n".join(cache.errors.values())
            )
        rows = slice(self.format.lowest_pitch, self.format.lowest_pitch + self.format.pitches)
        outside = cache.notes.sum(axis=1) - cache.notes[:, rows].sum(axis=1)
        if outside.any():
            low, high = self.pitch_range or (0, PITCHES - 1)
            rank_zero_warn(
                f"pitch_range {low}..{high} cuts {outside.sum()} of {cache.notes.sum()} notes, in "
                f"{np.count_nonzero(outside)} of {len(cache.names)} pieces"
            )

    def _check_options(self) -> None:
        """Raise ValueError for impossible options."""
        _ = self.cached.form.with_meter(self.beats_per_bar)  # checks it
        low, high = self.pitch_range or (0, PITCHES - 1)
        if not 0 <= low <= high < PITCHES:
            raise ValueError(f"pitch_range must be two MIDI pitches, 0 to 127, lower first, not [{low}, {high}]")
        check_least(
            window=(self.window, 1),
            batch_size=(self.batch_size, 1),
            samples_per_epoch=(self.samples_per_epoch, 1),
            transpose=(self.transpose, 0),
            num_workers=(self.num_workers, 0),
            seed=(self.seed, 0),
        )
        self.evaluation.check(self.window)
        if self.labels and self.source.classes([]) is None:
            raise ValueError(
                f"labels: the pieces of {type(self.source).__name__} have no classes: give folder, whose first-level "
                "folders are classes, or set labels to false"
            )
        if self.request.label is not None and not self.labels:
            raise ValueError("predict.label is given, but the data has no classes; set labels to true, or it to null")
