"""State in files: larger than memory allows, the same bits, nothing left behind."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import a_tree, every_optimiser, memory_of, run_alone, same_bits


@every_optimiser
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_state_in_files_has_the_bits_of_state_in_memory(name, engine, tmp_path):
    filed, plain = (fl.OPTIMIZERS[name](engine=engine, state_dir=place) for place in (tmp_path, None))
    w, v = a_tree(0), a_tree(0)
    for seed in range(1, 7):
        filed.step(w, a_tree(seed))
        plain.step(v, a_tree(seed))
        assert same_bits(w, v)
        assert memory_of(filed) == memory_of(plain)
    others = [copy.deepcopy(filed), pickle.loads(pickle.dumps(filed))]
    plain.step(v, a_tree(7))
    for other in others:
        x = copy.deepcopy(w)
        other.step(x, a_tree(7))
        assert same_bits(x, v)
    assert filed.t == 6


def test_the_files_have_no_names_and_go_with_the_optimizer(tmp_path):
    opt = fl.Adam(state_dir=str(tmp_path))
    opt.step(np.ones(1000), np.ones(1000))
    assert list(tmp_path.iterdir()) == []
    if sys.platform == "linux":
        held = {os.stat(f"/proc/self/map_files/{name}").st_ino for name in os.listdir("/proc/self/map_files")
                if str(tmp_path) in os.readlink(f"/proc/self/map_files/{name}")}  # fmt: skip
        assert len(held) == 1
        del opt
        gc.collect()
        assert not [name for name in os.listdir("/proc/self/map_files")
                    if str(tmp_path) in os.readlink(f"/proc/self/map_files/{name}")]  # fmt: skip


def test_a_folder_that_is_none_is_refused_by_name(tmp_path):
    for wrong in (str(tmp_path / "missing"), 7, __file__):
        with pytest.raises(ValueError, match="state_dir of Adam must be a folder that exists"):
            fl.Adam(state_dir=wrong)
    assert repr(fl.SGD(0.1, state_dir=str(tmp_path))) == f"SGD(lr=0.1, state_dir={str(tmp_path)!r})"


def test_arrays_that_are_not_in_host_memory_are_refused(tmp_path):
    jax = need("jax")
    with pytest.raises(TypeError, match="state_dir is for arrays in host memory"):
        fl.Adam(state_dir=tmp_path).step(jax.numpy.ones(3), jax.numpy.ones(3))


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
def test_a_disk_without_room_is_an_error_before_anything_has_changed(tmp_path):
    run_alone("""
import resource, sys
import numpy as np, fallline as fl
w = np.ones(2_000_000, np.float32)
opt = fl.Adam(state_dir=sys.argv[1])
opt.step(w, w.copy())
opt.reset()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
before = w.copy()
try:
    opt.step(w, np.ones_like(w))
except OSError as error:
    assert "16,000,000 bytes of state" in str(error) and sys.argv[1] in str(error), error
else:
    raise AssertionError("no error")
assert opt.t == 0 and (w == before).all()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
opt.step(w, np.ones_like(w))
assert opt.t == 1
""", str(tmp_path))


BEYOND = """
import resource, sys
import numpy as np, fallline as fl

def anonymous():
    return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) * 1024

folder = sys.argv[1]
small = fl.Adam(state_dir=folder)
for _ in range(4):
    small.step(np.ones(200_000, np.float32), np.ones(200_000, np.float32))  # imports, compiles, starts its threads
data = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
limit = data + 32 * 2**20
n = limit // 10  # of which parameters and state take 12 n bytes
for name in ("w", "g"):
    np.memmap(f"{folder}/{name}", np.float32, "w+", shape=n)[:] = 1.0
w, g = (np.asarray(np.memmap(f"{folder}/{name}", np.float32, mode)) for name, mode in (("w", "r+"), ("g", "r")))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before = anonymous()
try:
    fl.Adam().step(w, g)
except MemoryError:
    pass  # the limit holds
else:
    raise AssertionError("there was memory for the state")
opt = fl.Adam(state_dir=folder)
for _ in range(4):
    opt.step(w, g)
assert opt.t == 4 and (w == w[0]).all() and w[0] != 1
print(anonymous() - before, 12 * n, limit)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_step_streams_over_parameters_and_state_larger_than_memory_is_allowed(tmp_path):
    grown, held, limit = map(int, run_alone(BEYOND, str(tmp_path)).split())
    print(f"parameters and state of {held:,} bytes, a limit of {limit:,}: anonymous memory grew by {grown:,}")
    assert held > limit
    assert grown < 8 * 2**20
