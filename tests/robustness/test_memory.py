"""Small files that claim to be large: they are refused within a gigabyte."""

import multiprocessing
import resource
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mutations import BOMB

from datamodules.images.decoding import decode
from litscale import music
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.npz import read_npy, read_npz
from litscale.storage.pickles import load_plain

READERS = {
    ".ckpt": read_checkpoint,
    ".npz": read_npz,
    ".npy": read_npy,
    ".pickle": load_plain,
    ".mid": partial(music.read_midi, longest=2**17),
    ".png": lambda path: decode(path, str(path)),
}
FRAME = b"\x80\x04\x95" + (2**40).to_bytes(8, "little")  # a pickle's frame of so many bytes


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")
def test_small_files_that_claim_to_be_large(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    said = tmp_path_factory.mktemp("said") / "lines.txt"
    zeros = np.zeros(2**20, np.uint8).tobytes()
    for name in ("deflated.ckpt", "deflated.npz"):
        with (
            zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("data.npy", "w", force_zip64=True) as entry,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": (3 * 2**30,)}
            np.lib.format.write_array_header_1_0(entry, header)
            for _ in range(70):  # beyond the 64 MiB that any file may expand to
                entry.write(zeros)
    np.save(tmp_path / "long.npy", np.zeros(1))
    whole = (tmp_path / "long.npy").read_bytes()
    (tmp_path / "long.npy").write_bytes(whole.replace(b"(1,), }            ", b"(1099511627776,), }"))
    (tmp_path / "frame.pickle").write_bytes(FRAME + b"K\x01.")
    (tmp_path / "bytes.pickle").write_bytes(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.")
    (tmp_path / "place.pickle").write_bytes(b"\x80\x02K\x01r" + (2**31).to_bytes(4, "little") + b".")
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02\x8a\x0a" + b"\xff" * 10 + b".X" + b"\xff" * 4)
    (tmp_path / "events.mid").write_bytes(BOMB)
    process = multiprocessing.get_context("fork").Process(target=read_within_a_gigabyte, args=(tmp_path, said))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert said.read_text().splitlines() == [f"{path.name} named" for path in sorted(tmp_path.iterdir())]


def read_within_a_gigabyte(folder: Path, said: Path) -> None:
    """Read all files of a folder, and write what comes of each of them as lines."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
    lines = []
    for path in sorted(folder.iterdir()):
        try:
            READERS[path.suffix](path)
        except ValueError as error:
            lines.append(f"{path.name} {'named' if str(path) in str(error) else error}")
        else:
            lines.append(f"{path.name} was read")
    said.write_text("\n".join(lines))
