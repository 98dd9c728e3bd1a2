"""The file of a checkpoint: whole or not there, whatever ends its writing, and read for ever."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import stat
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fallline as fl
from fallline._optimizer.keeping import save
from fallline._state.digests import PIECE
from fallline._state.file import READERS, VERSION
from fuzz_checkpoints import digest_of
from needed import need
from places import DATA
from support import (
    halving,
    run_alone,
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
    assert found["digest"].tobytes() == digest_of(path.read_bytes()[:-32])


@pytest.mark.parametrize("version", READERS)
def test_files_of_every_format_are_read_for_ever(version):
    own = {"rules": [signed_average_1]}
    for name, arguments in (("all", {**own, "lr": halving}), ("fresh", {}), ("partition", {**own, "x.lr": halving})):
        file = DATA / f"{name}-{version}.safetensors"
        assert b'"fallline":"%d"' % version in file.read_bytes()[:40]
        loaded = fl.load(file, **arguments)
        opt, *rest = loaded if isinstance(loaded, tuple) else (loaded,)
        known = json.loads(file.with_suffix(".json").read_text())
        assert repr(opt) == known["repr"]
        assert [opt.t, opt.skipped] == known["counts"]
        if rest:
            params = opt.step(rest[0], {"net": [np.ones(2), np.ones(3, np.float32)], "0": 1.0})
            assert [np.asarray(x).tobytes().hex() for x in (*params["net"], params["0"])] == known["next step"]


def test_a_reader_of_a_format_is_never_taken_away():
    found = {int(file.stem.rpartition("-")[2]) for file in DATA.glob("*.safetensors")}
    assert found == set(READERS) == set(range(1, VERSION + 1))


SOME_PIECES = (np.arange(1_600_000.0), np.ones(3), np.arange(5, dtype=np.float32))  # three whole ones, and a bit


def test_a_file_of_several_pieces_is_whole_or_refused(path):
    fl.SGD().save(path, SOME_PIECES)
    content = path.read_bytes()
    assert content[-32:] == digest_of(content[:-32])
    assert same_bits(fl.load(path)[1], SOME_PIECES)
    with open(path, "r+b", buffering=0) as file:
        for place in (99, PIECE - 1, PIECE, 2 * PIECE + 7, 3 * PIECE, len(content) - 33, len(content) - 32):
            os.pwrite(file.fileno(), bytes([content[place] ^ 1]), place)
            with pytest.raises(fl.CheckpointError, match="altered or cut short"):
                fl.load(path)
            os.pwrite(file.fileno(), content[place : place + 1], place)
        assert same_bits(fl.load(path)[1], SOME_PIECES)
        os.pwrite(file.fileno(), content[2 * PIECE : 3 * PIECE] + content[PIECE : 2 * PIECE], PIECE)  # swapped
        with pytest.raises(fl.CheckpointError, match="altered or cut short"):
            fl.load(path)
    for length in (3 * PIECE + 32, 3 * PIECE, 2 * PIECE + 32, PIECE + 32):
        os.truncate(path, length)
        with pytest.raises(fl.CheckpointError, match="altered or cut short"):
            fl.load(path)


@pytest.mark.parametrize("beyond", [-8, 0, 8])
def test_a_file_may_end_with_a_piece(beyond, path):
    fl.SGD().save(path, np.zeros(PIECE // 8))
    more = path.stat().st_size - 32 - PIECE
    w = np.arange((PIECE - more + beyond) // 8, dtype=np.float64)
    fl.SGD().save(path, w)
    content = path.read_bytes()
    assert len(content) == PIECE + beyond + 32
    assert content[-32:] == digest_of(content[:-32])
    assert same_bits(fl.load(path)[1], w)


def test_a_file_is_written_and_read_where_no_thread_can_be_started(path, monkeypatch):
    fl.SGD().save(path, SOME_PIECES)
    before = path.read_bytes()

    def refused(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    fl.SGD().save(path, SOME_PIECES)
    assert path.read_bytes() == before
    assert same_bits(fl.load(path)[1], SOME_PIECES)


def test_a_file_is_written_and_read_at_the_very_end_of_a_process(path):
    script = ("import atexit, sys, numpy as np, fallline as fl; w = np.arange(1_600_000.0); opt = fl.SGD(); "
              "atexit.register(lambda: print(opt.load(sys.argv[1]).sum() == w.sum())); "
              "atexit.register(opt.save, sys.argv[1], w)")
    assert run_alone(script, path) == "True\n"


def test_saving_and_loading_take_no_memory_that_grows_with_the_file(path):
    w = np.ones(12_000_000)

    def taken_by(call):
        tracemalloc.start()
        call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert taken_by(lambda: fl.SGD().save(path, w)) < 7 * PIECE
    assert taken_by(lambda: fl.load(path)) < w.nbytes + PIECE


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
        save(opt._stepper, opt._built(), path, w, {"late": Interrupting()})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


SAVING = """
import sys, numpy as np, fallline as fl
opt, w = fl.Adam(), np.ones(400_000)  # of several pieces
for t in range(10_000):
    w = opt.step(w, w)
    opt.save(sys.argv[1], w)
    if t == 0:
        print("saved", flush=True)
"""


@pytest.mark.slow
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
    opt._stepper.torn = True
    for call in (lambda: opt.save(path), opt.state_dict):
        with pytest.raises(fl.TornOptimizer, match="load a state"):
            call()
    assert path.read_bytes() == before
    w = opt.load(path)
    walk(opt, w, [4])
    assert opt.t == 5
