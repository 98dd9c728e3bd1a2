"""What a call takes and keeps: nothing that grows with the parameters but the state, and nothing of the caller's."""

import gc
import sys
import tracemalloc
import weakref
from contextlib import suppress

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.trees import flatten
from support import NAMES, SLOTS, every_engine, every_optimiser, run_alone, update

SLACK = 128 * 1024  # bytes that a call may take of any size: tables, tiles, Python's own

KINDS = {  # no leaf so small that a byte per coordinate would stay within the slack
    "one array": lambda: np.full(400_001, 0.5, np.float32),
    "a tree": lambda: {"a": np.full(300_001, 0.5, np.float32), "b": [np.full((300, 1000), 0.5, np.float32)]},
    "two dtypes": lambda: {"a": np.full(300_001, 0.5, np.float32), "b": np.full(300_001, 0.5)},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def bytes_of(tree):
    return sum(leaf.nbytes for leaf in flatten(tree)[0])


def taken_by(call):
    """The most bytes that a call takes at once, and how many of them it has not given back at its end."""
    tracemalloc.start()
    try:
        call()
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return most, held


# ---- while a call runs -----------------------------------------------------------------------------------------------


@pytest.mark.needs("no new arrays")
@pytest.mark.parametrize(("name", "nonfinite"), [*((name, "raise") for name in NAMES), ("Adam", "propagate")])
@every_kind
@pytest.mark.parametrize("way", ["step", "out"])
def test_no_call_takes_memory_that_grows_with_the_parameters_but_the_state(name, kind, nonfinite, way):
    w, g, out = KINDS[kind](), KINDS[kind](), KINDS[kind]()
    opt = fl.OPTIMIZERS[name](nonfinite=nonfinite)

    def call(opt=opt):
        return opt.step(w, g) if way == "step" else update(opt, g, w, out=out)

    compiles = opt.fresh()
    for _ in range(3):
        call(compiles)
    state = len(SLOTS[name]) * bytes_of(w)
    assert taken_by(call)[0] <= state + SLACK
    assert max(taken_by(call)[0] for _ in range(5)) <= SLACK


@pytest.mark.needs("no new arrays")
@every_optimiser
@every_kind
def test_update_takes_one_new_array_for_each_leaf_and_no_more(name, kind):
    w, g, kept = KINDS[kind](), KINDS[kind](), []
    opt = fl.OPTIMIZERS[name]()
    update(opt, g, w)
    for _ in range(4):
        most, held = taken_by(lambda: kept.append(update(opt, g, w)))
        assert 0 <= held - bytes_of(g) <= most - bytes_of(g) <= SLACK
        assert bytes_of(kept.pop()) == bytes_of(g)


@every_engine
@pytest.mark.parametrize("which", ["parameter", "gradient", "out"])
def test_a_leaf_that_is_not_contiguous_passes_through_buffers_of_a_size_that_does_not_grow(engine, which):
    most = []
    for n in (70_000, 300_000):
        w, g, out = (np.full((n, 2), 0.5, np.float32)[:, 0] if what == which else np.full(n, 0.5, np.float32)
                     for what in ("parameter", "gradient", "out"))  # fmt: skip
        opt = fl.Adam(engine=engine)

        def call(opt=opt, w=w, g=g, out=out):
            return opt.update(g, out=out) if which == "out" else opt.step(w, g)

        call()
        most.append(max(taken_by(call)[0] for _ in range(4)))
    assert most[1] <= most[0] + SLACK


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_gradient_that_is_refused_or_skipped_takes_no_memory_that_grows_with_it(nonfinite):
    w, g = np.zeros(400_001, np.float32), np.zeros(400_001, np.float32)
    opt = fl.Adam(nonfinite=nonfinite)

    def call():
        with suppress(fl.NonFiniteGradient):
            opt.step(w, g)

    for steps_before in (1, 3):
        for _ in range(steps_before):
            call()
        g[-1] = np.nan
        assert taken_by(call)[0] <= SLACK
        g[-1] = 0.0


# ---- after it --------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "Adam": fl.Adam,
    "decayed": lambda **options: fl.chain(fl.Adam(), fl.weight_decay(0.1), **options),  # which reads the parameters
}


def read_by(opt, w):
    return w if "rate" in opt.hyper else None


CALLS = {
    "step": lambda opt, w, g, out: opt.step(w, g),
    "update": lambda opt, w, g, out: opt.update(g, params=read_by(opt, w)),
    "update with out=": lambda opt, w, g, out: opt.update(g, params=read_by(opt, w), out=out),
}
SHAPES = {
    "one array": lambda dtype=np.float32: np.ones(50, dtype),
    "a tree": lambda dtype=np.float32: {"a": np.ones(50, dtype), "b": [np.ones((3, 4), dtype), np.ones(0, dtype)]},
}
every_call = pytest.mark.parametrize("call", CALLS)
every_name = pytest.mark.parametrize("name", OPTIMIZERS)
every_shape = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture
def without_gc():
    """What is not kept is freed at once: no cycle waits for the collector."""
    gc.disable()
    yield
    gc.enable()


def watched(*trees):
    return [weakref.ref(leaf) for tree in trees for leaf in flatten(tree)[0]]


def alive(references):
    return sum(ref() is not None for ref in references)


@every_engine
@every_call
@every_name
@every_shape
def test_no_call_keeps_the_gradient_or_the_increment(engine, call, name, shape, without_gc):
    opt, w, out = OPTIMIZERS[name](engine=engine), SHAPES[shape](), SHAPES[shape]()
    for k in range(10):
        g = SHAPES[shape](np.float64 if k in (4, 7) else np.float32)
        result = CALLS[call](opt, w, g, out)
        references = watched(g) if result is w or result is out else watched(g, result)
        del g, result
        assert not alive(references), f"call {k + 1}"


@every_engine
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_call_that_is_refused_or_skipped_does_not_keep_the_gradient(engine, nonfinite, without_gc):
    opt, w = fl.Adam(engine=engine, nonfinite=nonfinite), np.zeros(50)
    for _ in range(4):
        g = np.full(50, np.nan)
        with suppress(fl.NonFiniteGradient):
            opt.step(w, g)
        references = watched(g)
        del g
        assert not alive(references)
        opt.step(w, np.ones(50))


@every_engine
@every_call
@every_name
@every_shape
@pytest.mark.parametrize("calls", [1, 2, 5])
def test_parameters_and_outputs_that_the_caller_drops_are_not_kept(engine, call, name, shape, calls, without_gc):
    opt, w, out = OPTIMIZERS[name](engine=engine), SHAPES[shape](), SHAPES[shape]()
    for _ in range(calls):
        CALLS[call](opt, w, SHAPES[shape](), out)
    references = watched(w, out)
    del w, out
    assert not alive(references)


@every_engine
@every_call
def test_an_optimizer_that_is_dropped_or_reset_frees_its_state_at_once(engine, call, without_gc):
    w, g, out = ({"a": np.ones(50_000), "b": np.ones(20_000)} for _ in range(3))
    compiles = fl.Adam(engine=engine)
    for _ in range(3):
        CALLS[call](compiles, w, g, out)
    for reset in (False, True):
        opts = []

        def live_and_die(opts=opts, reset=reset):
            opts.append(fl.Adam(engine=engine))
            for _ in range(4):
                CALLS[call](opts[0], w, g, out)
            assert tracemalloc.get_traced_memory()[0] >= 2 * bytes_of(w)
            if reset:
                opts[0].reset()
            else:
                opts.clear()

        assert taken_by(live_and_die)[1] <= SLACK


# ---- beyond 2**31 ----------------------------------------------------------------------------------------------------

BEYOND = """
import ctypes, mmap, os, sys
import numpy as np, fallline as fl

PIECE = 1 << 22  # bytes
N = 2**31 + 12_345  # elements of four bytes
PIECES = -(-4 * N // PIECE)
OWN = sorted({0, PIECES - 1, *(k * 2**31 // PIECE + d for k in (1, 2, 3, 4) for d in (-1, 0))})
ALIASED = PIECES - len(OWN)
per_piece = PIECE // 4

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000
writable = mmap.PROT_READ | mmap.PROT_WRITE

def mapped(where, length, protection, flags, fd=-1, offset=0):
    at = libc.mmap(where, length, protection, flags, fd, offset)
    if at in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return at

def virtual():
    '''An array whose pieces are one and the same memory, but for those in OWN; behind it nothing can be written.'''
    fd = os.memfd_create("pieces")
    os.ftruncate(fd, (len(OWN) + 1) * PIECE)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    base = mapped(None, (PIECES + 1) * PIECE, 0, flags)
    for k in range(PIECES):
        place = OWN.index(k) + 1 if k in OWN else 0
        mapped(base + k * PIECE, PIECE, writable, mmap.MAP_SHARED | MAP_FIXED, fd, place * PIECE)
    end = -(-(base + 4 * N) // mmap.PAGESIZE) * mmap.PAGESIZE
    mapped(end, base + (PIECES + 1) * PIECE - end, 0, flags | MAP_FIXED)
    memory = np.memmap(os.fdopen(fd, "r+b"), np.float32, "r+").reshape(-1, per_piece)
    return np.frombuffer((ctypes.c_float * N).from_address(base), np.float32), memory

w, in_memory = virtual()
g, gradient = virtual()
gradient[:] = 1.0
rest = N - (PIECES - 1) * per_piece  # elements of the last piece

def assert_all(aliased, own):
    assert (in_memory[0] == aliased).all(), ("aliased", in_memory[0].min(), in_memory[0].max(), aliased)
    assert (in_memory[1:-1] == own).all(), "own"
    assert (in_memory[-1, :rest] == own).all() and (in_memory[-1, rest:] == 0.0).all(), "the end"

fl.set_num_threads(1)  # one piece after the other, as they share their memory
opt = fl.SGD(lr=1.0)
for k in range(1, 4):
    assert opt.step(w, g) is w
    assert_all(-ALIASED * k, -k)
in_memory[:] = 0.0
opt = fl.SGD(lr=0.5, nonfinite="propagate")
for k in range(1, 4):
    assert opt.update(g, out=w) is w
    assert_all(-0.5, -0.5)
    in_memory[:] = 0.0
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is mapped again and again as Linux does it")
def test_every_one_of_more_than_two_to_the_31_elements_is_stepped_once_and_nothing_behind_them():
    run_alone(BEYOND)
