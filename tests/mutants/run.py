"""Mutation testing: would the tests notice if the code meant something else?

    make mutants                                       # the fixed sample of 200 mutants, resumed where it stopped
    PYTHONPATH=tests python -m mutants.run --only litscale/models/fractal

The tree is copied to a temporary folder, so that no file of it is edited. Each test file is run once there to learn
which tests run which lines; then each mutant of the sample is written into the copy and the tests that run its lines
are run: the fastest first, for at most 100 s, up to the first that fails. All that is learned is kept in
``runs/mutants/`` for as long as the files that it depends on stay as they are.

A mutant is caught by a test that fails, or that takes ten times its CPU time (or hangs). The exit status is 0 if the
share of caught mutants is high enough and ``survivors.yaml`` gives a reason for every other one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutants.operators import Mutant, mutants, mutate

SEED = 14
LEAST_CAUGHT = 0.92
MOST_SECONDS = 100  # of tests, as long as they took before, for one mutant
TARGETS = (
    *(f"litscale/{name}" for name in ("models", "music", "metrics")),
    *(f"datamodules/{name}.py" for name in ("base", "requests", "rolls/windows", "rolls/splits", "images/renderer")),
    *(f"lit_models/{name}.py" for name in ("optimization", "token_metrics", "speculative/comparison")),
    *(f"lit_models/tokenizer/{name}.py" for name in ("codebook", "known_tokens", "reconstruction")),
)
TESTS = (
    *(f"tests/litscale/{name}" for name in ("models", "music", "metrics")),
    "tests/datamodules",
    "tests/lit_models",
    "tests/test_frozen.py",
)
# imported once, before the processes of the mutants are forked; nothing of the project
LIBRARIES = (
    "coverage",
    "hypothesis",
    "lightning.pytorch",
    "matplotlib.pyplot",
    "muspy",
    "numpy",
    "torch",
    "torchmetrics",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the sample; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the tree")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="files and folders that are mutated")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files and folders of tests")
    parser.add_argument("--count", type=int, default=200, help="size of the sample")
    parser.add_argument("--only", default="", help="of the sample, only mutants whose file or name holds this text")
    options = parser.parse_args(arguments)
    for name in LIBRARIES:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.root.resolve(), Path(folder).resolve() / "tree")
        tests = bench.coverage(_python_files(bench.copy, options.tests))
        sample = choose(bench.copy, options.targets, options.count)
        chosen = [m for m in sample if options.only in f"{m.file} {m.name}"]
        results = bench.run(chosen, tests)
    return report(results, yaml.safe_load((options.root / "tests/mutants/survivors.yaml").read_text()) or {})


def choose(root: Path, targets: list[str], count: int) -> list[Mutant]:
    """The mutants whose names' hashes are smallest: an edit elsewhere does not change the sample."""
    found = [m for file in _python_files(root, targets) for m in mutants((root / file).read_text(), file)]
    return sorted(found, key=lambda m: hashlib.sha256(f"{SEED} {m.name}".encode()).digest())[:count]


def report(results: dict[str, dict[str, Any]], listed: dict[str, str]) -> int:
    """Print the survivors and what is wrong with them; returns the exit status."""
    survivors = [name for name, result in results.items() if result["status"] == "survived"]
    unlisted = [name for name in survivors if name not in listed]
    for name in survivors:
        print(f"survived: {name}\n          {listed.get(name, 'NOT in tests/mutants/survivors.yaml: write the test')}")
    for name in listed:
        if name in results and name not in survivors:
            print(f"caught, though tests/mutants/survivors.yaml lists it: {name}")
    caught = 1 - len(survivors) / max(len(results), 1)
    print(f"caught {len(results) - len(survivors)} of {len(results)} mutants ({caught:.1%})")
    return 1 if unlisted or caught < LEAST_CAUGHT else 0


class Bench:
    """A copy of the tree in which mutants are tried.

    Args:
        root: the tree; results are kept in its ``runs/mutants``.
        copy: folder that is made for the copy.
    """

    def __init__(self, root: Path, copy: Path) -> None:
        self.root, self.copy = root, copy
        listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listing, text=True).split("\0"):
            if name and (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        self.store = root / "runs" / "mutants"
        self.store.mkdir(parents=True, exist_ok=True)
        os.chdir(copy)
        # the copy comes before an installed project, here and in processes that tests start
        sys.path[:0] = [str(copy), str(copy / "tests")]
        os.environ["PYTHONPATH"] = str(copy)

    def coverage(self, files: list[str]) -> dict[str, dict[str, Any]]:
        """What each test file runs: ``seconds`` by test, ``lines`` by source file and test, ``hash`` of the test file.

        A line that is run by a fixture of a wider scope than the test stands under ``""``, for all tests of the file.
        """
        known = _read(self.store / "coverage.json")
        for i, file in enumerate(files):
            entry = known.get(file)
            if entry is None or any(self._hash(name) != value for name, value in entry["hashes"].items()):
                print(f"coverage {i + 1}/{len(files)}: {file}", flush=True)
                self._fork(["-m", "not slow", file], _Recorder(self.copy))
                known[file] = _read(self.copy / "recorded.json")
                known[file]["hashes"] = {name: self._hash(name) for name in [file, *known[file]["lines"]]}
                _write(self.store / "coverage.json", known)
        return {file: known[file] for file in files}

    def run(self, sample: list[Mutant], tests: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Results by the mutant's name: ``status``, caught or survived, and the test that caught it."""
        known = _read(self.store / "results.json")
        results = {}
        for i, mutant in enumerate(sample):
            covering = self._covering(mutant, tests)
            result = known.get(mutant.name)
            if result is None or result["hash"] != self._key(mutant, covering, result):
                result = self._try(mutant, covering)
                result["hash"] = self._key(mutant, covering, result)
                known[mutant.name] = result
                _write(self.store / "results.json", known)
            results[mutant.name] = result
            print(f"{i + 1}/{len(sample)} {result['status']}: {mutant.name} [{result['test']}]", flush=True)
        return results

    def _covering(self, mutant: Mutant, tests: dict[str, dict[str, Any]]) -> dict[str, float]:
        """Seconds by test, for the tests that run the mutant's lines: the fastest, in this order."""
        found = {}
        for file, entry in tests.items():
            lines = entry["lines"].get(mutant.file, {})
            names = {name for name, run in lines.items() if not mutant.lines.isdisjoint(run)}
            if "" in names:
                # lines that are run by importing or by a shared fixture matter for every test that uses the file, and
                # for the file's own tests, which may use no more than its constants
                names = set(entry["seconds"] if Path(mutant.file).stem in Path(file).stem else lines)
            for name in names:
                if name in entry["seconds"]:
                    found[name] = entry["seconds"][name]
        fastest = sorted(found.items(), key=lambda item: item[1])
        ends = accumulate(seconds for _, seconds in fastest)
        return {name: seconds for (name, seconds), end in zip(fastest, ends, strict=True) if end <= MOST_SECONDS}

    def _try(self, mutant: Mutant, covering: dict[str, float]) -> dict[str, Any]:
        if not covering:
            return {"status": "survived", "test": "no test runs these lines"}
        target = self.copy / mutant.file
        original = target.read_text()
        try:
            target.write_text(mutate(original, mutant))
            # compiled files are known by time and size, which two mutants may share
            shutil.rmtree(target.parent / "__pycache__", ignore_errors=True)
            guard = _Guard(self.copy / "running", covering)
            status = self._fork(["-x", *covering], guard)
        finally:
            target.write_text(original)
            shutil.rmtree(target.parent / "__pycache__", ignore_errors=True)
        test = f"all of {len(covering)} tests pass" if status == 0 else guard.path.read_text()
        return {"status": "caught" if status else "survived", "test": test}

    def _fork(self, arguments: list[str], plugin: object) -> int:
        """Run pytest in a process of its own; returns its exit status, minus the signal's number if one ended it."""
        child = os.fork()
        if child == 0:
            os.setsid()
            output = os.open(self.store / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
            os._exit(pytest.main([*options, *arguments], plugins=[plugin]))
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what its tests started, too
        return status

    def _hash(self, file: str) -> str:
        path = self.copy / file
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _key(self, mutant: Mutant, covering: dict[str, float], result: dict[str, Any]) -> str:
        """Hash of what a result depends on: the file, and the tests that caught the mutant or did not."""
        tests = [result["test"]] if result["status"] == "caught" else list(covering)
        files = sorted({test.split("::")[0] for test in tests})
        return hashlib.sha256("".join([self._hash(mutant.file), *map(self._hash, files), *tests]).encode()).hexdigest()


class _Guard:
    """Names the running test in a file, and ends the process if a test takes far longer than it should.

    CPU time decides, so that a busy machine catches no mutant; the clock only ends what hangs.
    """

    def __init__(self, path: Path, seconds: dict[str, float]) -> None:
        self.path, self.seconds = path, seconds
        path.write_text("importing")

    def pytest_sessionstart(self) -> None:
        self._limit(30)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.path.write_text(nodeid)
        self._limit(self.seconds.get(nodeid, 0))

    def pytest_sessionfinish(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)

    def _limit(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, 30 + 10 * seconds)
        signal.alarm(600 + int(100 * seconds))


class _Recorder:
    """Records which lines of the project's files each test runs, and how long it takes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Begin before conftest.py imports the project: what runs by importing is run by every test, too."""
        import coverage

        omitted = ["tests/*", "benchmarks/*"]
        self.coverage = coverage.Coverage(data_file=None, config_file=False, source=[str(self.root)], omit=omitted)
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        if fixturedef.scope == "function":
            return (yield)
        self.coverage.switch_context("")
        try:
            return (yield)
        finally:
            self.coverage.switch_context(request._pyfuncitem.nodeid if hasattr(request, "_pyfuncitem") else "")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self.failed.add(report.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        self.coverage.switch_context("")

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        data = self.coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = {}
        for file in data.measured_files():
            by_test = lines.setdefault(str(Path(file).relative_to(self.root)), {})
            for line, names in data.contexts_by_lineno(file).items():
                for name in names:
                    by_test.setdefault(name, []).append(line)
        passed = {name: round(value, 3) for name, value in self.seconds.items() if name not in self.failed}
        _write(self.root / "recorded.json", {"seconds": passed, "failed": sorted(self.failed), "lines": lines})


def _python_files(root: Path, names: list[str]) -> list[str]:
    """Paths from the root: files as they are named, and of a folder's files its tests or its modules."""
    found = []
    for name in names:
        pattern = "test_*.py" if name.startswith("tests") else "*.py"
        found += [root / name] if name.endswith(".py") else sorted((root / name).rglob(pattern))
    return [str(path.relative_to(root)) for path in found]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.with_suffix(".tmp").write_text(json.dumps(value))
    path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    sys.exit(main())
