"""A job runs the code as it was when it was submitted, and its script holds no secrets."""

import subprocess
import sys
from pathlib import Path

import pytest

from litscale.cli.launch import command, snapshot
from litscale.cli.launch.command import main
from litscale.storage import provenance

RUN = "runs/mine"
FIT = ["--", "fit", "--config", "configs/mine.yaml", "--model.name=a b"]
# What stands for a cluster: sbatch keeps the script, srun prints a module that is found, and the command.
SBATCH = '#!/bin/bash\ncp "$2" runs/submitted.sh\necho "77;cluster"\n'
SRUN = f'#!/bin/bash\n{sys.executable} -P -c "import mine; print(mine.VALUE)"\nprintf "%s\\n" "$@"\n'


def git(*words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The working directory: a repository with a module, a change that is not committed, a new file and a link."""
    home = tmp_path / "home with space"
    home.mkdir()
    monkeypatch.chdir(home)
    Path("configs").mkdir()
    for name, text in {"mine.py": "VALUE = 1", "configs/mine.yaml": "lr: 1", ".gitignore": "runs/\nbig*"}.items():
        Path(name).write_text(text)
    Path("link.py").symlink_to("mine.py")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    Path("mine.py").write_text("VALUE = 2")
    Path("new.py").write_text("NEW = 3")
    Path(".env").write_text("WANDB_API_KEY=abc")
    Path("big.bin").write_text("ignored")
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(command, "HOME", home)  # our own code is of no matter here, and larger
    seen = []
    monkeypatch.setattr(
        command, "parsed", lambda words: seen.append(list(words)) or {"trainer": {"default_root_dir": RUN}}
    )
    provenance._code.cache_clear()
    yield seen
    provenance._code.cache_clear()


def test_a_job_runs_the_code_of_its_submission(repository, capsys):
    main(["--nodes", "2", "--gpus", "8", "--time", "24:00:00", "--env", "A=b c", "--sbatch=--mem=100G", *FIT])
    out = capsys.readouterr().out
    assert f"Job 77 of {RUN}/launch.sh; its output: {RUN}/slurm-77.out" in out
    # 1. what sbatch got
    text = Path("runs/submitted.sh").read_text()
    assert text == Path(RUN, "launch.sh").read_text()
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=24:00:00", "--requeue"} <= set(options)
    assert {"--signal=SIGUSR1@90", "--mem=100G", "--job-name=mine", "--open-mode=append"} <= set(options)
    (code,) = Path(RUN).glob("code-*")
    names = {str(path.relative_to(code)) for path in code.rglob("*") if not path.is_dir()}
    # 2. afterwards all is edited
    Path("mine.py").write_text("VALUE = 4")
    Path("configs/mine.yaml").write_text("lr: 2")
    # 3. and the job runs
    job = subprocess.run(
        ["bash", Path("runs/submitted.sh").resolve()], capture_output=True, text=True, cwd="/", check=True
    )
    value, *words = job.stdout.splitlines()
    assert value == "2"
    assert words[:6] == [sys.executable, "-P", "-m", "litscale", "fit", "--config"]
    assert Path(words[6]).read_text() == "lr: 1"
    assert words[7:] == ["--model.name=a b", "--trainer.num_nodes=2", "--trainer.devices=8"]
    assert repository == [["fit", "--config", "configs/mine.yaml", *words[7:]]]
    # 4. the snapshot holds what git does, and says what it is of
    expected = {"mine.py", "configs/mine.yaml", ".gitignore", "link.py", "new.py", provenance.SNAPSHOT}
    assert names == expected
    assert (code / "link.py").is_symlink()


def test_a_manifest_names_the_code_of_the_snapshot(repository):
    main(["--gpus", "0", *FIT])
    (code,) = Path(RUN).resolve().glob("code-*")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    git("commit", "-am", "second")
    provenance._code.cache_clear()
    (known,) = provenance.code_of(Path.cwd(), code / "configs")
    assert (known.folder, known.commit) == (str(Path.cwd()), head)
    assert b"+VALUE = 2" in known.diff
    assert known.new_files == (".env", "new.py")


def test_the_same_code_is_kept_once_and_a_dry_run_writes_nothing(repository, capsys):
    main(["--dry", *FIT])
    printed = capsys.readouterr().out
    assert not Path("runs").exists()
    main(FIT)
    assert Path(RUN, "launch.sh").read_text() == printed
    main(FIT)
    assert len(list(Path(RUN).glob("code-*"))) == 1
    Path("new.py").write_text("NEW = 5")
    main(FIT)
    assert len(list(Path(RUN).glob("code-*"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a command after --"),
        (["--", "fitt"], "give a command after --"),
        (["--env", "WANDB_API_KEY=abc", *FIT], "--env WANDB_API_KEY: secrets must not be written to a file: export"),
        (["--env", "A", *FIT], "--env A: give NAME=VALUE"),
        ([*FIT, "--x.api_key=abc"], "secrets must not be written to a file"),
        (
            ["--sbatch=--export=ALL,API_KEY=abc", *FIT],
            "secrets must not be written to a file: '--export=ALL,API_KEY=***'",
        ),
        ([*FIT, "--trainer.devices=2"], "--trainer.devices is given by --nodes and --gpus"),
        (["--nodes", "0", *FIT], "--nodes must be at least 1"),
        (["--", "evaluate", "--best"], "give the folder of a run first"),
        (["--", "evaluate"], "give the folder of a run first"),
        (["--", "evaluate", "runs/a", "--every", "0"], "--every must be at least 1, not 0"),
        (["--dry", "fit", "--config", "a.yaml"], "give fit and all that follows it after --: litscale launch"),
        (["--nods", "2", *FIT], "--nods: there is no such option; did you mean nodes?"),
    ],
)
def test_bad_input_is_one_error(repository, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "abc" not in said
    assert not Path("runs/submitted.sh").exists()


def test_new_files_are_bounded_and_sbatch_is_needed(repository, monkeypatch, capsys):
    monkeypatch.setattr(snapshot, "MOST_NEW", 3)
    with pytest.raises(SystemExit):
        main(FIT)
    assert "the largest is new.py: list files that are not code in .gitignore" in capsys.readouterr().err
    monkeypatch.setattr(snapshot, "MOST_NEW", 300)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(SystemExit):
        main(FIT)
    assert f"there is no sbatch here: on a machine of the cluster, sbatch {RUN}/launch.sh" in capsys.readouterr().err
