"""A user's own modules are found, and never taken for ours in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MINE = '''
from lightning.pytorch import Callback


class Mine(Callback):
    """One of a user."""

    def __init__(self, often: int = 3):
        self.often = often
'''


def run(folder, *words):
    """Run Python in a folder that is not on its path, as for a console script, or with ``-m`` where it is the first."""
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run([sys.executable, *words], env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)


def test_modules_of_the_working_directory_come_after_ours(tmp_path):
    """With a module of one of our names beside it."""
    (tmp_path / "mymodule.py").write_text(MINE)
    (tmp_path / "callbacks.py").write_text("raise RuntimeError('imported in place of ours')")
    words = ["fit", "--config", "demo.yaml", "--trainer.callbacks+=mymodule.Mine", "--print_config"]
    printed = run(
        tmp_path, "-P", "-c", f"from litscale.cli.main import main; import sys; sys.argv[1:] = {words}; main()"
    )
    assert printed.returncode == 0, printed.stderr[-3000:]
    names = [callback["class_path"] for callback in yaml.safe_load(printed.stdout)["trainer"]["callbacks"]]
    assert names[0] == "callbacks.LevelLosses"
    assert names[-1] == "mymodule.Mine"


@pytest.mark.parametrize("file", ["callbacks.py", "datamodules/__init__.py", "lit_models/__init__.py"])
def test_a_module_in_place_of_ours_is_named(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    name = file.split("/")[0].removesuffix(".py")
    told = run(tmp_path, "-m", "litscale", "fit", "--config", "demo.yaml").stderr.splitlines()[-1]
    assert told.startswith(f"ImportError: {path} is found in place of litscale's own package {name} ({ROOT / name})")


def test_a_folder_of_another_kind_is_not_in_the_way(tmp_path):
    (tmp_path / "callbacks").mkdir()
    code = "from litscale.cli.imports import *; prepare_imports(); print(find_spec('callbacks').origin)"
    assert run(tmp_path, "-c", code).stdout.strip() == str(ROOT / "callbacks" / "__init__.py")
