"""The tool that makes mutants: what it changes, and what it says of a small project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants.operators import mutants, mutate
from mutants.run import choose, report

SOURCE = '''
"""Words, 1 of them."""

def share(values: list[int] = [1][:0], least: int = 2) -> float:
    """Share of large values."""
    if not values:
        raise ValueError(f"{1 + 1} values")
    large = [v for v in values if v >= least and v < 100]
    large.sort()
    return len(large) / max(len(values), -1)
'''


def test_what_is_changed_and_what_is_not() -> None:
    found = mutants(SOURCE, "some/where/file.py")
    assert [mutant.name.removeprefix("where/file.py::share: ") for mutant in found] == [
        "1 -> 2",
        "0 -> 1",
        "2 -> 3",
        "not values -> values",
        "v >= least and v < 100 -> v >= least or v < 100",
        "v >= least -> v > least",
        "v < 100 -> v <= 100",
        "100 -> 101",
        "large.sort() -> (removed)",
        "large.sort() -> large",
        "len(large) / max(len(values), -1) -> len(large) * max(len(values), -1)",
        "max(len(values), -1) -> min(len(values), -1)",
        "-1 -> 1",
    ]
    assert [sorted(found[i].lines) for i in (0, 3, 5, 10)] == [[4], [6], [8], [10]]
    changed = mutate(SOURCE, found[5])
    assert "if v > least and v < 100" in changed
    assert changed.replace("v > least", "v >= least") == mutate(SOURCE, found[3]).replace(
        "if values:", "if not values:"
    )


def test_a_name_survives_lines_that_move_and_is_unique() -> None:
    twice = "def f(a):\n    return a + 1 + (a + 1)\n"
    names = [mutant.name for mutant in mutants(twice, "a/f.py")]
    assert len(set(names)) == len(names)
    assert names == [mutant.name for mutant in mutants(f"import os\n\n\n{twice}", "a/f.py")]
    assert [name.partition(": ")[2] for name in names if "a + 1 -> a - 1" in name] == [
        "a + 1 -> a - 1",
        "a + 1 -> a - 1 (2)",
    ]


@pytest.mark.parametrize(
    ("survivors", "listed", "status"),
    [
        ([], {}, 0),
        ([0, 7], {"0": "is equal", "7": "is equal"}, 0),
        ([0, 7], {"0": "is equal"}, 1),
        ([0, 7, 9], {"0": "is equal", "7": "is equal", "9": "is equal"}, 1),  # 22 of 25 are below 92 %
    ],
)
def test_the_status_asks_for_the_share_and_for_reasons(survivors: list[int], listed: dict, status: int) -> None:
    results = {str(i): {"status": "survived" if i in survivors else "caught"} for i in range(25)}
    assert report(results, listed) == status


def test_the_sample_is_the_same_after_an_edit_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text(SOURCE)
    first = [mutant.name for mutant in choose(tmp_path, ["code"], 6)]
    (tmp_path / "code" / "a.py").write_text(f"import os\n{SOURCE}")
    assert [mutant.name for mutant in choose(tmp_path, ["code"], 6)] == first
    assert [mutant.name for mutant in choose(tmp_path, ["code"], 3)] == first[:3]


@pytest.mark.slow
def test_a_small_project(tmp_path: Path) -> None:
    """Its one test does not look at 0 and 1; once it does, and what is unused has gone, every mutant is caught."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "tests" / "mutants").mkdir(parents=True)
    source = "def sign(x):\n    if x > 0:\n        return 1\n    return 5\n\n\ndef unused(x):\n    return x + x\n"
    (tmp_path / "toy" / "code.py").write_text(source)
    (tmp_path / "tests" / "test_code.py").write_text(
        "from toy.code import sign\n\n\ndef test_sign():\n    assert sign(3) == 1\n    assert sign(-3) == 5\n"
    )
    (tmp_path / "tests" / "mutants" / "survivors.yaml").write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    helpers = Path(__file__).parents[1]

    def run() -> subprocess.CompletedProcess[str]:
        options = ["--root", str(tmp_path), "--targets", "toy", "--tests", "tests"]
        return subprocess.run(
            [sys.executable, "-m", "mutants.run", *options],
            env=os.environ | {"PYTHONPATH": str(helpers)},
            capture_output=True,
            text=True,
        )

    first = run()
    assert first.returncode == 1, first.stderr
    assert "survived: toy/code.py::sign: x > 0 -> x >= 0" in first.stdout
    assert "survived: toy/code.py::unused: x + x -> x - x" in first.stdout
    assert "caught 2 of 5 mutants (40.0%)" in first.stdout
    results = json.loads((tmp_path / "runs" / "mutants" / "results.json").read_text())
    assert {name.partition("sign: ")[2]: result["test"] for name, result in results.items() if "sign" in name} == {
        "x > 0 -> x >= 0": "all of 1 tests pass",
        "0 -> 1": "all of 1 tests pass",
        "1 -> 2": "tests/test_code.py::test_sign",
        "5 -> 6": "tests/test_code.py::test_sign",
    }
    assert (tmp_path / "toy" / "code.py").read_text() == source
    test = tmp_path / "tests" / "test_code.py"
    test.write_text(f"{test.read_text()}    assert sign(0) == 5\n    assert sign(1) == 1\n")
    (tmp_path / "toy" / "code.py").write_text(source.partition("\n\n")[0])
    second = run()
    assert (second.returncode, second.stdout.splitlines()[-1]) == (0, "caught 4 of 4 mutants (100.0%)")
