"""Run folders where the system knows little of the user."""

import getpass
import json
import os

import pytest

from litscale.storage.run_folders import OWNER, lock_run_folder


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 12345"), OSError("no username")])
def test_a_user_without_a_name_owns_a_folder(tmp_path, monkeypatch, error):
    """As in a container that is started with any number of a user; Python 3.13 raises an OSError."""

    def fail():
        raise error

    monkeypatch.setattr(getpass, "getuser", fail)
    lock_run_folder(tmp_path).release()
    assert json.loads((tmp_path / OWNER).read_text())["user"] == str(os.getuid())


def test_a_folder_that_cannot_be_made_is_named_with_its_option(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"trainer.default_root_dir: cannot write there .*give another: .*file/run"):
        lock_run_folder(tmp_path / "file" / "run")
