"""A gradient may lie in any way over what is written, and either in memory of any kind: the right result or a refusal.

Each case is one buffer; its twin gets the result that the same numbers give in arrays of their own. The buffers are
compared whole: a byte written elsewhere, or a gradient changed, would show.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fallline as fl
from support import COMPLEX, HALVES, build, every_engine, every_optimiser, normal, update

N = 9


def swapped(a):
    return a.view(a.dtype.newbyteorder())


def unaligned(a):
    return a.view(np.uint8)[1:-a.itemsize + 1].view(a.dtype)


# of a flat array: what is written (parameter or out=), and the gradient
CASES = {
    "the gradient is what is written": lambda a: (a[:N], a[:N]),
    "overlapping by one element": lambda a: (a[:N], a[N - 1 : 2 * N - 1]),
    "overlapping by all but one, from below": lambda a: (a[1 : N + 1], a[:N]),
    "overlapping by all but one, from above": lambda a: (a[:N], a[1 : N + 1]),
    "reversed": lambda a: (a[:N], a[N - 1 :: -1]),
    "transposed": lambda a: (a[:N].reshape(3, 3), a[:N].reshape(3, 3).T),
    "a window over it": lambda a: (a[: 2 * N : 2], a[N // 2 : N // 2 + N]),
    "columns that share nothing": lambda a: (a[: 2 * N].reshape(N, 2)[:, 0], a[: 2 * N].reshape(N, 2)[:, 1]),
    "a gradient of zero strides": lambda a: (a[:N], as_strided(a[N:], (N,), (0,))),
    "a gradient that is one element of it": lambda a: (a[:N], as_strided(a[3:], (N,), (0,))),
    "a gradient that is one row of it": lambda a: (a[:N].reshape(3, 3), np.broadcast_to(a[3:6], (3, 3))),
    "unaligned": lambda a: (unaligned(a)[:N], unaligned(a)[N : 2 * N]),
    "unaligned, overlapping": lambda a: (unaligned(a)[:N], a[:N]),
    "written byte-swapped": lambda a: (swapped(a)[:N], a[N : 2 * N]),
    "a byte-swapped gradient": lambda a: (a[:N], swapped(a)[N : 2 * N]),
    "byte-swapped and overlapping": lambda a: (swapped(a)[:N], a[N - 1 : 2 * N - 1]),
}
# What lies over what is found before any rule is asked. These stand for all: they read the gradient alone, state, the
# parameter, the gradient before, a norm of the leaf or the tree, two points, or the leaf as a whole.
KINDS = ["SGD", "Adam", "AdamW", "Rprop", "LAMB", "Prodigy", "ScheduleFreeAdamW", "Muon", "Adafactor"]
every_alias = pytest.mark.parametrize(("name", "dtype"), [(name, np.dtype(float)) for name in KINDS] + [
    ("Adam", dtype) for dtype in [np.dtype("float32"), *HALVES, *COMPLEX]], ids=str)  # fmt: skip


def buffer(make, seed, dtype):
    """A flat array whose two views, as the case makes them, hold reasonable numbers: no NaN either where one is laid
    over the other's bytes, as all NaN count as one."""
    drawn = (filled(make, (seed, attempt), dtype) for attempt in itertools.count())
    with np.errstate(invalid="ignore"):
        return next(a for a in drawn if all(np.isfinite(view).all() for view in make(a)))


def filled(make, seed, dtype):
    """A flat array whose two views, as the case makes them, are filled with random numbers, one after the other."""
    a = normal(np.random.default_rng(seed), 4 * N, dtype)
    for k, view in enumerate(make(a)):
        if view.flags.writeable:
            view[...] = normal(np.random.default_rng((*seed, k)), view.shape, dtype)
    return a


def apart(view):
    """The same numbers in an array of its own."""
    return np.array(view, None if view.dtype.isnative else view.dtype.newbyteorder("="), order="C")


@pytest.mark.slow
@every_alias
@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_whatever_the_gradient_shares_with_what_is_written_the_result_is_right(name, dtype, engine):
    for label, make in CASES.items():
        if "swapped" in label and dtype.name == "bfloat16":
            continue  # of which there is no other byte order
        for call in ("step", "update", "update, out="):
            opt, plain = build(name, engine), build(name, engine)
            for seed in range(4):
                a, b = buffer(make, seed, dtype), buffer(make, seed, dtype)
                assert a.tobytes() == b.tobytes()
                (w, g), (target, gradient) = make(a), make(b)
                v, h = apart(target), apart(gradient)
                if call == "step":
                    assert opt.step(w, g) is w
                    target[...] = plain.step(v, h)
                elif call == "update":
                    assert update(opt, g).tobytes() == update(plain, h).tobytes(), (label, seed)
                else:
                    assert update(opt, g, out=w) is w
                    target[...] = update(plain, h)
                assert a.tobytes() == b.tobytes(), (label, call, seed)
                for slot, array in opt.state.items():
                    assert array.tobytes() == plain.state[slot].tobytes(), (label, call, seed, slot)


REFUSED = {
    "zero strides": (as_strided(np.ones(1), (N,), (0,)), r"overlaps itself .*: pass a copy"),
    "an element shared by two rows": (as_strided(np.ones(2 * N), (3, 3), (16, 8)), "overlaps itself"),
    "longdouble": (np.ones(N, np.longdouble), r"must be .*float64.* Got float\d+"),
    "clongdouble": (np.ones(N, np.clongdouble), r"must be .*float64.* Got complex\d+"),
    "dates": (np.zeros(N, "datetime64[s]"), "must be .*float64.* Got datetime64"),
    "records": (np.zeros(N, [("x", float)]), "must be .*float64.* Got "),
}
if np.dtype(np.longdouble).itemsize == 8:
    del REFUSED["longdouble"], REFUSED["clongdouble"]


@every_optimiser
@every_engine
@pytest.mark.parametrize("warm", [0, 4])
def test_what_cannot_be_written_right_is_refused_by_name(name, engine, warm):
    for array, message in REFUSED.values():
        before, g = array.tobytes(), np.ones(array.shape)
        opt, out = build(name, engine), build(name, engine)
        for _ in range(warm):
            opt.step(np.ones(array.shape), g)
            update(out, g)
        with pytest.raises((TypeError, ValueError), match=f"the parameter {message}"):
            opt.step(array, g)
        with pytest.raises((TypeError, ValueError), match=f"out {message}"):
            update(out, g, out=array)
        assert (opt.t, out.t, array.tobytes()) == (warm, warm, before)


@every_engine
def test_a_gradient_of_longdouble_is_cast_once_the_parameters_dtype_is_known(engine):
    opt, plain, g = fl.Adam(engine=engine), fl.Adam(engine=engine), np.linspace(-1, 1, N)
    with pytest.raises(TypeError, match=r"the gradient must be .*float64"):
        opt.update(g.astype(np.clongdouble))
    for _ in range(4):
        w, v = np.ones(N), np.ones(N)
        opt.step(w, g.astype(np.longdouble))
        plain.step(v, g)
        assert w.tobytes() == v.tobytes()
