"""A user's own modules are found, and never taken for ours in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from litscale import __version__
from litscale.cli.main import main

ROOT = Path(__file__).parents[3]
MINE = '''
from lightning.pytorch import Callback


class Mine(Callback):
    """One of a user."""

    def __init__(self, often: int = 3):
        self.often = often
'''

EDITABLE = """
import runpy
import sys
from importlib.util import spec_from_file_location
from pathlib import Path

root = Path(sys.argv.pop())
sys.path = [folder for folder in sys.path if folder != str(root)]


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        place = root.joinpath(*name.split("."))
        files = [file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()]
        return spec_from_file_location(name, files[0]) if files else None


sys.meta_path.append(Finder)
sys.argv.append("--version")
runpy.run_module("litscale", run_name="__main__")
"""


def run(folder, *words):
    """Run Python in a folder that is not on its path, as for a console script, or with ``-m`` where it is the first."""
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run([sys.executable, *words], env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)


def test_modules_of_the_working_directory_come_after_ours(tmp_path):
    """With a module of one of our names beside it."""
    (tmp_path / "mymodule.py").touch()
    (tmp_path / "callbacks.py").touch()
    code = (
        "from litscale.cli.imports import *; prepare_imports(); import mymodule; print(find_spec('callbacks').origin)"
    )
    found = run(tmp_path, "-P", "-c", code)
    assert found.stdout.strip() == str(ROOT / "callbacks" / "__init__.py"), found.stderr[-3000:]


def test_a_config_names_classes_of_the_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mymodule.py").write_text(MINE)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "demo.yaml", "--trainer.callbacks+=mymodule.Mine", "--print_config"])
    assert stop.value.code in (0, None)
    names = [callback["class_path"] for callback in yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]]
    assert names[0] == "callbacks.LevelLosses"
    assert names[-1] == "mymodule.Mine"


@pytest.mark.parametrize("file", ["callbacks.py", "datamodules/__init__.py", "lit_models/__init__.py"])
def test_a_module_in_place_of_ours_is_named(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    name = file.split("/")[0].removesuffix(".py")
    ended = run(tmp_path, "-m", "litscale", "fit", "--config", "demo.yaml")
    assert ended.returncode == 2
    (told,) = ended.stderr.splitlines()
    assert told.startswith(
        f"litscale fit: error: {path} is found in place of litscale's own package {name} ({ROOT / name})"
    )


def test_a_folder_of_another_kind_is_not_in_the_way(tmp_path):
    (tmp_path / "callbacks").mkdir()
    code = "from litscale.cli.imports import *; prepare_imports(); print(find_spec('callbacks').origin)"
    assert run(tmp_path, "-c", code).stdout.strip() == str(ROOT / "callbacks" / "__init__.py")


def test_a_clone_beside_the_working_directory_is_not_in_the_way_of_an_editable_installation(tmp_path):
    """Python takes its folder, which is no package, for ours, and asks pip's finder for our submodules alone."""
    (tmp_path / "litscale").mkdir()
    (tmp_path / "start.py").write_text(EDITABLE)
    ended = run(tmp_path, "start.py", str(ROOT))
    assert ended.stdout == f"litscale {__version__}\n", ended.stderr[-3000:]


@pytest.mark.parametrize(
    ("file", "option"),
    [
        ("callbacks.py", "--trainer.callbacks+=callbacks.Mine"),
        ("datamodules/__init__.py", "--data=datamodules.Mine"),
        ("lit_models.py", "--model=lit_models.Mine"),
    ],
)
def test_a_module_that_is_passed_over_for_ours_is_named(tmp_path, monkeypatch, capsys, file, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("callbacks.py", "datamodules/__init__.py", "lit_models.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(SystemExit):
        main(["fit", "--config", "demo.yaml", option])
    name = file.split("/")[0].removesuffix(".py")
    told = f"; {tmp_path / file} was not looked at, since {name} is a package of litscale's own: rename it\n"
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("was not looked at") == 1
