"""Parameters, gradients and outputs may lie in memory in any way; their neighbours are never written."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from fallline._arrays.memory import byte_range
from fallline._step.calls.kernels import detach
from support import (
    COMPLEX,
    FULL,
    HALVES,
    NAMES,
    a_tree,
    build,
    every_engine,
    every_optimiser,
    every_optimiser_or_precision,
    frozen,
    normal,
    same_bits,
    update,
)

SHAPE = (6, 5, 4)
VIEWS = {
    "whole": lambda a: a,
    "last index": lambda a: a[..., 0],
    "first index": lambda a: a[0],
    "middle index": lambda a: a[:, 2],
    "reversed": lambda a: a[::-1],
    "reversed everywhere": lambda a: a[::-1, ::-1, ::-1],
    "transposed": lambda a: a.T,
    "swapped": lambda a: a.swapaxes(0, 1),
    "window": lambda a: a[1:-1, 1:-1, 1:-1],
    "every other": lambda a: a[::2, 1::2],
    "every third backwards": lambda a: a[::-3, :, ::-2],
    "one element": lambda a: a[2, 3, 1:2],
    "0-d": lambda a: a[2, 3, 1, ...],
    "new axis": lambda a: a[:, None, :, 1],
    "nothing": lambda a: a[:, 3:3],
}
MEMORIES = ["C", "Fortran", "memmap", "unaligned", "record field"]


def memory(kind, dtype, tmp_path):
    """A base array of the shape, filled with random numbers, in the given kind of memory."""
    values = normal(np.random.default_rng(9), SHAPE, dtype)
    if kind == "Fortran":
        return np.asfortranarray(values)
    if kind == "memmap":
        base = np.memmap(tmp_path / "base", dtype=dtype, mode="w+", shape=SHAPE, offset=128)
    elif kind == "unaligned":
        base = np.zeros(values.nbytes + 1, np.uint8)[1:].view(dtype).reshape(SHAPE)
    elif kind == "record field":
        base = np.zeros(SHAPE, np.dtype([("before", np.int8), ("field", dtype), ("after", np.int8)]))["field"]
    else:
        return values
    base[...] = values
    return base


@pytest.mark.slow
@every_engine
@pytest.mark.parametrize(("name", "dtype", "kind"), [(name, np.dtype(float), "C") for name in NAMES] + [
    ("Adam", dtype, kind) for dtype in FULL + HALVES + COMPLEX for kind in MEMORIES], ids=str)  # fmt: skip
def test_any_view_gets_the_right_step_and_its_neighbours_none(name, engine, dtype, kind, tmp_path):
    base = memory(kind, dtype, tmp_path)
    indices = np.arange(base.size).reshape(SHAPE)
    for label, view in VIEWS.items():
        opt, plain = build(name, engine), build(name, engine)
        w, before = view(base), np.array(base, order="C")
        flat = np.array(w, order="C")
        for seed in range(3):
            g = normal(np.random.default_rng(seed), w.shape, dtype)
            assert opt.step(w, g) is w
            plain.step(flat, g)
        after = np.array(base, order="C")
        assert same_bits(np.array(w, order="C"), flat), label
        elsewhere = ~np.isin(indices, view(indices))
        assert same_bits(after[elsewhere], before[elsewhere]), label
        rounded_away = dtype in HALVES and (w.size == 1 or name == "Lion")  # whose steps are all of 1e-4
        assert w.size == 0 or rounded_away or not same_bits(after, before), label


@every_optimiser
@every_engine
def test_gradients_and_outputs_may_be_views_too(name, engine):
    rng = np.random.default_rng(8)
    indices = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for label, view in VIEWS.items():
        opt, plain = build(name, engine), build(name, engine)
        gradients, canvas = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
        kept, before = gradients.copy(), canvas.copy()
        out = view(canvas)
        for _ in range(3):
            assert update(opt, view(gradients), out=out) is out
            wanted = update(plain, np.array(view(gradients), order="C"))
            assert same_bits(np.array(out, order="C"), wanted), label
        elsewhere = ~np.isin(indices, view(indices))
        assert same_bits(canvas[elsewhere], before[elsewhere]), label
        assert same_bits(gradients, kept), label


@every_engine
def test_a_memory_map_is_written_through_to_its_file(engine, tmp_path):
    w = np.memmap(tmp_path / "w", dtype=np.float32, mode="w+", shape=(50,))
    fl.SGD(0.5, engine=engine).step(w, np.ones(50, np.float32))
    w.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "w", np.float32), np.full(50, -0.5, np.float32))


@every_optimiser
@every_engine
def test_columns_that_interleave_without_sharing_are_two_parameters(name, engine):
    base = np.random.default_rng(7).standard_normal((5, 2))
    apart = [base[:, 0].copy(), base[:, 1].copy()]
    g = [np.arange(5.0), -np.arange(5.0)]
    build(name, engine).step([base[:, 0], base[:, 1]], g)
    build(name, engine).step(apart, g)
    assert same_bits(base, np.stack(apart, axis=1))


@every_optimiser_or_precision
@every_engine
def test_the_gradient_is_never_written(name, engine, dtype):
    opt = build(name, engine)
    w, g = a_tree(0, dtype), a_tree(1, dtype)
    g["b"].flags.writeable = False
    kept = frozen(g)
    for _ in range(4):
        opt.step(w, g)
        update(opt, g)
        assert frozen(g) == kept


@every_optimiser
@every_engine
def test_a_gradient_that_overlaps_another_leaf_is_read_before_it_changes(name, engine):
    values = np.random.default_rng(5).standard_normal(10)
    w = [values[:5].copy(), values[5:].copy()]
    apart = [leaf.copy() for leaf in w]
    build(name, engine).step(w, [w[1], w[0]])
    build(name, engine).step(apart, [apart[1].copy(), apart[0].copy()])
    assert same_bits(w, apart)


def ranges_of(arrays):
    return [(*byte_range(a), a) for a in arrays]


@st.composite
def views(draw, base):
    """Any view of a matrix or of its flat memory: columns and rows that interleave, reversed ones, empty ones."""
    if draw(st.booleans()):
        start, stop = sorted(draw(st.tuples(*[st.integers(0, base.size)] * 2)))
        return base.reshape(-1)[start : stop : draw(st.integers(1, 7))]
    index = [slice(*sorted(draw(st.tuples(*[st.integers(0, n)] * 2))), draw(st.integers(1, 4))) for n in base.shape]
    view = base[tuple(index)]
    return view[::-1].T if draw(st.booleans()) else view


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_those_gradients_are_copied_that_share_an_element_with_what_is_written(data):
    base = np.arange(60.0).reshape(6, 10)
    written, gradients = ([data.draw(views(base)) for _ in range(n)] for n in (data.draw(st.integers(6, 16)), 8))
    found = detach(gradients, ranges_of(written))
    for before, after in zip(gradients, found):
        assert np.array_equal(before, after)
        assert (after is not before) == any(np.shares_memory(before, w) for w in written)


def test_parameters_as_their_own_gradients_are_found_in_time_that_grows_as_their_number():
    def seconds(gradients):
        start = time.perf_counter()
        detach(gradients, written)
        return time.perf_counter() - start

    arrays = [np.zeros(3) for _ in range(6000)]
    written, apart = ranges_of(arrays[::2]), arrays[1::2]
    assert min(seconds(arrays[::2]) for _ in range(3)) < 20 * min(seconds(apart) for _ in range(3))
