"""The script that completes command lines, in a real bash."""

import shutil
import subprocess

import pytest

from litscale.cli.main import main

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
ASK = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _litscale; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture
def completed(capsys, tmp_path):
    """Words of a command line, the last of them begun -> what it may become."""
    main(["completion", "bash"])
    script = capsys.readouterr().out
    (tmp_path / "mine.yaml").touch()

    def ask(*words):
        command = ["bash", "-c", script + ASK, "bash", "litscale", *words]
        asked = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        assert not asked.stderr
        return asked.stdout.split()

    return ask


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ex"], ["export"]),
        (["bench", "f"], ["fractal"]),
        (["fit", "--config", "digits/var_d"], ["digits/var_draft.yaml"]),
        (["fit", "--config", "mi"], ["mine.yaml"]),
        (["fit", "--config", "mine.yaml", "--trainer.max_s"], ["--trainer.max_steps"]),
        (["predict", "--ckpt_path", "b"], ["best"]),
        (["predict", "--model.p"], ["--model.pretrained"]),
        (["report", "m"], ["mine.yaml"]),
        (["report", "--trainer.max_s"], []),
    ],
)
def test_what_a_word_may_become(completed, words, expected):
    assert completed(*words) == expected


def test_zsh_uses_the_script_of_bash(capsys):
    main(["completion", "zsh"])
    first, *rest = capsys.readouterr().out.splitlines(keepends=True)
    assert "bashcompinit" in first
    main(["completion", "bash"])
    assert "".join(rest) == capsys.readouterr().out
