"""Progress of long work, in a terminal and elsewhere."""

import io
import sys

from litscale import progress as module
from litscale.progress import progress


def test_without_a_terminal_it_is_lines_of_plain_text(capsys, monkeypatch):
    assert list(progress("abc", "Reading letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "Reading letters: 3 of 3\n")
    monkeypatch.setattr(module, "SECONDS", 0)
    list(progress("abc", "Reading letters", 3, leave=False))
    lines = ["Reading letters: 1 of 3", "Reading letters: 2 of 3", "Reading letters: 3 of 3"]
    assert capsys.readouterr().err.splitlines() == lines


def test_short_work_may_show_nothing(capsys):
    assert list(progress(range(3), "Samples", 3, leave=False)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_work_that_fails_is_not_shown_as_done(capsys):
    passed = progress(map(int, ["1", "x"]), "Numbers", 2)
    assert next(passed) == 1
    try:
        next(passed)
    except ValueError:
        pass
    else:
        raise AssertionError("the error of the work is passed on")
    assert capsys.readouterr() == ("", "")


def test_in_a_terminal_it_is_a_bar(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(progress(range(2), "Samples", 2)) == [0, 1]
    assert "Samples: 100%" in screen.getvalue()
    assert "2/2" in screen.getvalue()
