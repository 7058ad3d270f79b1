"""Classes of one's own: options of any name reach them, and errors of their constructors name the class."""

import sys

import pytest

from litscale.cli.main import main

OWN = '''
from lightning.pytorch import Callback, LightningDataModule
from torch import nn

from lit_models import LitFractal


class Lacking(Callback):
    """Fails as code with a mistake does."""

    def __init__(self, often: int = 3):
        self.often = often.lacking


class Even(Callback):
    """Refuses an option."""

    def __init__(self, often: int = 3):
        raise ValueError(f"often must be even, not {often}")


class Named(Callback):
    """Has options with the names of arguments of the parser's own functions."""

    def __init__(self, kind: str = "", make: str = ""):
        raise ValueError(f"given: {kind}, {make}")


class Features(nn.Module):
    """An option of another class."""

    def __init__(self, path: str = "nowhere.txt"):
        super().__init__()
        open(path)


class Data(LightningDataModule):
    """Looks something up."""

    def __init__(self, folder: str = ""):
        {}["colour"]


class Module(LitFractal):
    """Imports what is not installed."""

    def __init__(self, width: int = 3):
        import not_installed
'''


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--trainer.callbacks+=broken.Lacking"], AttributeError, "has no attribute 'lacking'"),
        (["--trainer.callbacks+=broken.Even"], ValueError, "often must be even, not 3"),
        (
            ["--trainer.callbacks+=broken.Named", "--trainer.callbacks.kind", "a", "--trainer.callbacks.make", "b"],
            ValueError,
            "given: a, b",
        ),
        (
            ["--trainer.callbacks+=callbacks.GenerationQuality", "--trainer.callbacks.features", "broken.Features"],
            FileNotFoundError,
            "nowhere.txt",
        ),
        (["--data", "broken.Data"], KeyError, "colour"),
        (["--model", "broken.Module"], ModuleNotFoundError, "No module named 'not_installed'"),
    ],
)
def test_the_error_of_a_constructor_is_raised_as_it_is(tmp_path, monkeypatch, config, options, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    (tmp_path / "broken.py").write_text(OWN)
    with pytest.raises(error) as raised:
        main(["fit", "--config", str(config), "--trainer.fast_dev_run", "true", *options])
    assert message in str(raised.value)
    name = next(word for option in options for word in option.split("=") if word.startswith("broken."))
    assert raised.value.__notes__ == [f"in the constructor of {name}"]
