"""The litscale command tells its commands apart without importing more than they need."""

import subprocess
import sys

import pytest

import litscale
from litscale.cli.main import COMMANDS, OWN_OPTIONS, main


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_names_every_command(words, capsys):
    main(words)
    out = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert f"  {name} " in out
        assert what in out
    lines = out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("command", OWN_OPTIONS)
def test_help_of_a_command_fits_the_terminal(command, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: litscale {command}")
    assert max(map(len, out.splitlines())) <= columns


def test_help_is_quick():
    """Torch and Lightning alone take seconds to import."""
    code = "import sys; from litscale.cli.main import main; main(['--help']); print([*sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'litscale.cli.main'" in run.stdout
    assert not {"'torch'", "'lightning'", "'numpy'"} & set(run.stdout.split("[")[-1].strip("]\n").split(", "))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fitt", "there is no command fitt; did you mean fit?"),
        (
            "x",
            "there is no command x; there are fit, validate, test, predict, evaluate, sweep, launch, compare, report, "
            "export, completion, bench",
        ),
    ],
)
def test_an_unknown_command_names_those_there_are(word, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main([word])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"litscale: error: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export a --fold b", "export: error: --fold: there is no such option; did you mean folder?"),
        ("report a --serv", "report: error: --serv: there is no such option; did you mean serve?"),
        ("report a --sample=2", "report: error: --sample: there is no such option; did you mean samples?"),
        ("sweep a.yaml --job 2", "sweep: error: --job: there is no such option"),
    ],
)
def test_a_shortened_option_of_a_command_of_its_own_is_an_error(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"litscale {message}\n"


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_version(word, capsys):
    main([word])
    assert capsys.readouterr().out == f"litscale {litscale.__version__}\n"
