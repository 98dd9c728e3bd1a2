"""A disk that is really full, and one that is read-only: clear errors, old files whole, and the run goes on.

The disk is a small tmpfs in a mount namespace of its own, which needs `unshare` and root or user namespaces.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fallline as fl

__all__ = ["fill"]

SIZE = 512 * 1024
N = 4000  # of a file of some 100 kB


def fill() -> str:
    """Try it all out on a disk of its own; returns what was seen. Raises AssertionError for what must not happen."""
    with tempfile.TemporaryDirectory() as folder:
        command = f"mount -t tmpfs -o size={SIZE} none {folder} && exec {sys.executable} -m reliability.disk {folder}"
        return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command], check=True,
                              text=True, stdout=subprocess.PIPE).stdout.strip()  # fmt: skip


def _main(folder: Path) -> None:
    saves, filler = _saves(folder), folder / "filler"
    runs = _runs(folder, filler)
    _state(folder, filler)
    _read_only(folder)
    print(f"{saves} saves and {runs} runs of descend met a full disk: each said so, each old file stayed whole, each "
          "run went on to the same bits. State without room and a disk mounted read-only changed nothing either.")


def _leave(filler: Path, room: int) -> None:
    """Fill the disk but for so many bytes."""
    filler.unlink(missing_ok=True)
    with open(filler, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - room))


def _refused(call: Any, error: type[Exception], why: int) -> None:
    try:
        call()
    except error as caught:
        cause = caught if isinstance(caught, OSError) else caught.__cause__
        assert isinstance(cause, OSError)
        assert cause.errno == why, cause
    else:
        raise AssertionError("there was no error")


def _saves(folder: Path) -> int:
    opt, w, path = fl.Adam(), np.ones(N), folder / "run"
    opt.step(w, w)
    opt.save(path, w)
    before = path.read_bytes()
    rooms = range(0, len(before), 8192)
    opt.step(w, w)
    for room in rooms:
        _leave(folder / "filler", room)
        _refused(lambda: opt.save(path, w), fl.CheckpointError, errno.ENOSPC)
        assert path.read_bytes() == before
        assert sorted(p.name for p in folder.iterdir()) == ["filler", "run"]
    (folder / "filler").unlink()
    opt.save(path, w)
    assert (fl.load(path)[1] == w).all()
    path.unlink()
    return len(rooms)


def _descend(path: Path | None, at: dict[int, Any]) -> Any:
    opt = fl.Adam(0.1)

    def value_and_grad(w: np.ndarray) -> tuple[float, np.ndarray]:
        at.get(opt.t, lambda: None)()
        return float(w @ w), 2 * w

    return fl.descend(value_and_grad, np.linspace(-1, 1, N), opt, steps=12, progress=False, checkpoint=path,
                      checkpoint_every=None if path is None else 2)  # fmt: skip


def _runs(folder: Path, filler: Path) -> int:
    expected, path = _descend(None, {}), folder / "run"
    for t in range(3, 12):
        _refused(lambda t=t: _descend(path, {t: lambda: _leave(filler, 0)}), fl.CheckpointError, errno.ENOSPC)
        again = fl.Adam()
        again.load(path)
        assert again.t == (t - 1) // 2 * 2  # every second step is saved, after the next evaluation
        filler.unlink()
        found = _descend(path, {})
        assert (found.params == expected.params).all()
        assert (found.values == expected.values).all()
        path.unlink()
    return 9


def _state(folder: Path, filler: Path) -> None:
    opt, w = fl.Adam(state_dir=folder), np.ones(N)
    _leave(filler, 4096)
    _refused(lambda: opt.step(w, w.copy()), OSError, errno.ENOSPC)
    assert opt.t == 0
    assert (w == 1).all()
    filler.unlink()
    opt.step(w, w.copy())
    assert opt.t == 1


def _read_only(folder: Path) -> None:
    path, opt, w = folder / "run", fl.Adam(), np.ones(N)
    opt.save(path, w)
    gc.collect()  # what still maps a file of the disk keeps it writable
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    _refused(lambda: opt.save(path, w), fl.CheckpointError, errno.EROFS)
    _refused(lambda: opt.save(folder / "new", w), fl.CheckpointError, errno.EROFS)
    _refused(lambda: _descend(folder / "new", {0: lambda: sys.exit("it began")}), fl.CheckpointError, errno.EROFS)
    assert (fl.load(path)[1] == w).all()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
