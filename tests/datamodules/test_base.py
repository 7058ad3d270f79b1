"""The contract between data and what uses them."""

from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import DigitsDataModule, PianoRollDataModule, TokenDataModule
from datamodules.base import CanvasData, RollData, TokenData, WholeContract, class_count, offered, required


class Own(LightningDataModule):
    """A user's own data module, with some members and not with others."""

    alphabet = 256
    renderer = None

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 3

    @property
    def num_classes(self) -> int:
        raise FileNotFoundError("the classes are listed in a file")


def test_our_modules_offer_the_whole_contract(tmp_path: Path) -> None:
    for data in (DigitsDataModule(), PianoRollDataModule(str(tmp_path))):
        assert offered(data, WholeContract) is data
    assert offered(PianoRollDataModule(str(tmp_path)), RollData)
    assert not offered(DigitsDataModule(), RollData)


def test_what_a_cache_of_tokens_offers_is_that_of_its_source(tmp_path: Path) -> None:
    assert not offered(TokenDataModule(str(tmp_path)), CanvasData)
    assert offered(TokenDataModule(str(tmp_path), source=DigitsDataModule()), CanvasData)
    text = r"^object needs TokenDataModule to have `canvas_shape` and `alphabet`.*; give data.source, the data module"
    with pytest.raises(MisconfigurationException, match=text):
        required(TokenDataModule(str(tmp_path)), CanvasData, object())


def test_an_own_source_is_no_source_of_a_cache() -> None:
    own = Own()
    own.source = None
    with pytest.raises(MisconfigurationException) as caught:
        required(own, TokenData, object())
    assert "data.source" not in str(caught.value)


def test_all_that_is_missing_is_named_at_once() -> None:
    class Asker:
        pass

    class Both(CanvasData, RollData):
        pass

    own = Own()
    assert offered(own, Both) is None
    text = (
        r"^Asker needs Own to have `canvas_shape` and `rolls` \(for other uses it lacks `renderer` and "
        r"`described_request`, too\); do without$"
    )
    with pytest.raises(MisconfigurationException, match=text):
        required(own, Both, Asker(), "do without")
    own.canvas_shape, own.rolls = (1, 2, 3), list
    assert required(own, Both, Asker()) is own
    with pytest.raises(
        MisconfigurationException, match=r"^Asker needs a data module with `canvas_shape` and `alphabet`"
    ):
        required(None, CanvasData, Asker())


def test_data_without_classes_need_not_say_so() -> None:
    assert (class_count(None), class_count(LightningDataModule())) == (0, 0)
    assert class_count(DigitsDataModule()) == 10
    with pytest.raises(FileNotFoundError, match="listed in a file"):
        class_count(Own())
