"""`Snapshot`: the files of a git repository as they are now, so that editing does not change a job that waits."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from litscale.storage.provenance import Code, git, record_snapshot
from litscale.storage.temporaries import publish_folder, temporary_folder

MOST_NEW = 64 * 2**20  # bytes of files that git does not know
SECRET_NAMES = (".env*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", ".netrc")


@dataclass(frozen=True)
class Snapshot:
    """The present files of a repository: those of HEAD, with changes, and new files that are not ignored.

    Attributes:
        code: the repository.
        files: paths relative to its top, sorted.
        hash: hash of the commit and of names, modes and contents.
    """

    code: Code
    files: tuple[Path, ...]
    hash: str

    @property
    def top(self) -> Path:
        """The top folder of the repository."""
        return Path(self.code.folder)

    def folder(self, run: Path) -> Path:
        """Return the absolute path of the snapshot's folder in a run folder."""
        return run.resolve() / f"code-{self.hash}"

    def write(self, run: Path) -> Path:
        """Copy the files to a run folder, unless they are there already, and return the snapshot's folder.

        Raises:
            OSError: the files cannot be copied.
        """
        final = self.folder(run)
        if final.is_dir():
            return final
        run.mkdir(parents=True, exist_ok=True)
        with temporary_folder(run.resolve()) as folder:
            for name in self.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.top / name, folder / name, follow_symlinks=False)
            record_snapshot(folder, self.code)
            return publish_folder(folder, final)

    def inside(self, path: Path, run: Path) -> Path | None:
        """Return the path of a file's copy in the snapshot; None if the snapshot does not hold it."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are kept, as they are in the snapshot
        if not absolute.is_relative_to(self.top):
            absolute = path.resolve()
        if not absolute.is_relative_to(self.top) or absolute.relative_to(self.top) not in self.files:
            return None
        return self.folder(run) / absolute.relative_to(self.top)


def take(code: Code, run: Path) -> Snapshot:
    """Return a snapshot of a repository; nothing is copied yet.

    Args:
        code: the repository.
        run: the run folder, whose new files are left out.

    Raises:
        ValueError: new files have more than `MOST_NEW` bytes together.
    """
    top, run = Path(code.folder), run.resolve()
    # 1. the files: what git knows, and what it would add
    known, new = (_names(top, *words) for words in (("--cached",), ("--others", "--exclude-standard")))
    new = [name for name in new if not (top / name).is_relative_to(run) and not any(map(name.match, SECRET_NAMES))]
    sizes = {name: (top / name).lstat().st_size for name in new}
    if sum(sizes.values()) > MOST_NEW:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f"{top}: untracked files have {sum(sizes.values()) / 2**20:.0f} MiB, more than {MOST_NEW // 2**20}, and "
            f"the largest is {largest}: list files that are not code in .gitignore"
        )
    files = sorted({name for name in [*known, *new] if os.path.lexists(top / name) and not _is_folder(top / name)})
    # 2. their hash
    digest = hashlib.sha256(code.commit.encode())
    for name in files:
        path = top / name
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        mode = stat.S_IFMT(path.lstat().st_mode) | path.lstat().st_mode & stat.S_IXUSR
        digest.update(f"{name}\0{mode}\0{len(content)}\0".encode() + content)
    return Snapshot(code, tuple(files), digest.hexdigest()[:12])


def _names(top: Path, *words: str) -> list[Path]:
    listed = git(top, "ls-files", "-z", *words).decode(errors="surrogateescape").split("\0")
    return [Path(name) for name in listed if name]


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder, such as another repository inside this one."""
    return path.is_dir() and not path.is_symlink()
