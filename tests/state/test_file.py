"""The file of a checkpoint: whole or not there, whatever ends its writing, and read for ever."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import stat
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fallline as fl
from needed import need
from places import DATA
from support import (
    halving,
    same_bits,
    signed_average_1,
    start_alone,
    stepped,
    walk,
)


@pytest.fixture(params=["nameless", "named", "without links"])
def way(request, monkeypatch):
    """How the new file is made: without a name at first; with one, where the system has no such files; copied."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    elif request.param == "without links":
        def refused(*_, **__):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "link", refused)


def test_the_safetensors_library_reads_it(path):
    library = need("safetensors.numpy")
    opt, w = stepped()
    opt.save(path, w)
    found = library.load_file(path)
    assert same_bits(found["params/b"], w["b"])
    assert same_bits(found["state/m/a"], opt.state["m"]["a"])
    assert found["digest"].tobytes() == hashlib.sha256(path.read_bytes()[:-32]).digest()


def test_the_first_format_is_read_for_ever():
    own = {"rules": [signed_average_1]}
    for name, arguments in (("all-1", {**own, "lr": halving}), ("fresh-1", {}),
                            ("partition-1", {**own, "x.lr": halving})):
        loaded = fl.load(DATA / f"{name}.safetensors", **arguments)
        opt, *rest = loaded if isinstance(loaded, tuple) else (loaded,)
        known = json.loads((DATA / f"{name}.json").read_text())
        assert repr(opt) == known["repr"]
        assert [opt.t, opt.skipped] == known["counts"]
        if rest:
            params = opt.step(rest[0], {"net": [np.ones(2), np.ones(3, np.float32)], "0": 1.0})
            assert [np.asarray(x).tobytes().hex() for x in (*params["net"], params["0"])] == known["next step"]


@pytest.mark.usefixtures("way")
def test_saving_keeps_permissions_and_follows_links(path):
    opt, w = stepped()
    mask = os.umask(0o027)
    try:
        opt.save(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link = path.parent / "link"
    link.symlink_to(path.name)
    opt.save(link, w)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert same_bits(fl.load(path)[1], w)
    assert sorted(os.listdir(path.parent)) == ["link", path.name]
    dangling = path.parent / "dangling"
    dangling.symlink_to("later")
    opt.save(dangling)
    assert (path.parent / "later").is_file()


def assert_not_written(opt, path, w, why):
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    with pytest.raises(fl.CheckpointError, match="could not be written") as caught:
        opt.save(path, w)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == why
    assert {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)} == before


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("room", [0, 100, 5000, 60_000])
def test_a_full_disk_is_a_clear_error_and_leaves_the_old_file(room, path):
    opt, w = fl.Adam(), np.ones(4000)
    opt.step(w, w)
    opt.save(path, w)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        assert_not_written(opt, path, w, errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    opt.save(path, w)
    assert same_bits(fl.load(path)[1], w)


@pytest.mark.usefixtures("way")
def test_a_folder_that_cannot_be_written_is_a_clear_error_and_leaves_the_old_file():
    opt, w = stepped()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        opt.save(path, w)
        os.chmod(folder, 0o555)
        owner = os.geteuid()
        if owner == 0:  # whom permissions do not stop
            os.seteuid(65534)
        try:
            assert_not_written(opt, path, w, errno.EACCES)
        finally:
            os.seteuid(owner)
            os.chmod(folder, 0o755)
        assert same_bits(fl.load(path)[1], w)
        with pytest.raises(fl.CheckpointError, match=r"could not be written .No such file"):
            opt.save(Path(folder) / "none" / "run")


@pytest.mark.usefixtures("way")
def test_an_interrupt_while_saving_leaves_the_old_file(path):
    opt, w = stepped()
    opt.save(path, w)
    before = path.read_bytes()

    class Interrupting:
        dtype, shape, ndim = np.dtype("float64"), (4,), 1

        def __array__(self, dtype=None, copy=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opt._save(path, w, {"late": Interrupting()})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


SAVING = """
import sys, numpy as np, fallline as fl
opt, w = fl.Adam(), np.ones(100_000)
for t in range(10_000):
    w = opt.step(w, w)
    opt.save(sys.argv[1], w)
    if t == 0:
        print("saved", flush=True)
"""


def test_a_process_killed_at_any_moment_leaves_a_whole_file(path):
    random = np.random.default_rng(0)
    for _ in range(4):
        process = start_alone(SAVING, path)
        assert process.stdout.readline() == "saved\n"
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.communicate()
        opt, w = fl.load(path)
        assert opt.t >= 1
        assert (w != 1.0).all()
        assert sum(file.stat().st_size for file in path.parent.iterdir() if file != path) <= path.stat().st_size


def test_saving_while_another_thread_steps_is_refused_or_whole(path):
    opt, w = fl.Adam(engine="reference"), np.zeros(200_000)
    g = np.ones_like(w)
    opt.step(w, g)
    opt.save(path)
    done = threading.Event()

    def saving():
        while not done.is_set():
            with contextlib.suppress(fl.BusyOptimizer):
                opt.save(path)

    thread = threading.Thread(target=saving)
    thread.start()
    for _ in range(30):
        with contextlib.suppress(fl.BusyOptimizer):
            opt.step(w, g)
        state = fl.load(path).state["m"]
        assert (state == state[0]).all()
    done.set()
    thread.join()


def test_an_optimizer_that_is_torn_is_not_saved_and_a_file_makes_it_whole(path):
    opt, w = stepped()
    opt.save(path, w)
    before = path.read_bytes()
    opt._torn = True
    for call in (lambda: opt.save(path), opt.state_dict):
        with pytest.raises(fl.TornOptimizer, match="load a state"):
            call()
    assert path.read_bytes() == before
    w = opt.load(path)
    walk(opt, w, [4])
    assert opt.t == 5
