"""Parameters of 16 bits: computed in float32 with state of float32, rounded once per step, the same bits everywhere."""

from __future__ import annotations

import copy
import ctypes
import pickle

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.memory import address
from fallline._engines.llvm.compiler import Compiler
from fallline._engines.llvm.numbers import conversions
from needed import need
from short_way import long_way
from support import (
    HALVES,
    build,
    every_engine,
    every_half,
    every_optimiser,
    limits,
    memory_of,
    run_alone,
    same_bits,
    update,
)

BARE = Compiler("generic", "")  # of any processor of its kind: on x86-64 without all that came after SSE2
HOST = Compiler()
every_target = pytest.mark.parametrize("compiler", [HOST, BARE], ids=["host", "generic"])


def bits(array):
    """An array to the bit, every NaN counted as the same value."""
    array = array.copy()
    array[np.isnan(array)] = np.nan
    return array.tobytes()


def some(seed, dtype, n=101):
    """Numbers of many sizes."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * 10.0 ** rng.integers(-9, 4, n)).astype(dtype)


# ============================================================================================= conversions

LOOP = """
define void @loop(ptr noalias %from, ptr noalias %to, i64 %n) {{
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %loop ]
  %p = getelementptr inbounds {a}, ptr %from, i64 %k
  %q = getelementptr inbounds {b}, ptr %to, i64 %k
  %v = load {a}, ptr %p
  %w = call {b} @{name}({a} %v)
  store {b} %w, ptr %q
  %next = add nuw nsw i64 %k, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def converted(compiler, name, array, into):
    """The array through `widen` or `narrow`, a loop over it as kernels have it."""
    half = into if name == "narrow" else array.dtype
    a, b = ("float", "i16") if name == "narrow" else ("i16", "float")
    (where,) = compiler.compile(conversions(half) + LOOP.format(a=a, b=b, name=name), ("loop",), 3, 3)
    result = np.empty(array.shape, into)
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, ctypes.c_int64)(where)(address(array), address(result), array.size)
    return result


@every_half
@every_target
def test_every_number_of_16_bits_becomes_the_float32_that_numpy_makes_of_it(compiler, dtype):
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    assert bits(converted(compiler, "widen", every, np.float32)) == bits(every.astype(np.float32))


@every_half
@every_target
def test_float32_is_rounded_as_numpy_rounds_it(compiler, dtype):
    """Every number of 16 bits and every midpoint of two, with the float32 that lie next to each, and of every exponent
    a thousand others."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32).view(np.uint32).astype(np.int64)
    halfway = every[:, None] + [0, 1 << 12, 1 << 15, -(1 << 12)]
    near = (halfway[..., None] + [-2, -1, 0, 1, 2]).ravel() & 0xFFFFFFFF
    units = np.arange(2**16) * 2.0**-25  # subnormal numbers of float16 and what lies halfway between them
    small = units.astype(np.float32).view(np.uint32).astype(np.int64)[:, None] + [-1, 0, 1]
    exponents = np.arange(512)[:, None] << 23 | np.random.default_rng(0).integers(0, 2**23, (512, 1000))
    numbers = np.concatenate([near, small.ravel() & 0xFFFFFFFF, exponents.ravel()]).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        expected = numbers.astype(dtype)
    assert bits(converted(compiler, "narrow", numbers, dtype)) == bits(expected)


# =================================================================================================== steps


@pytest.mark.needs("a short way")
@every_optimiser
@every_half
def test_the_short_way_the_long_way_and_the_reference_engine_give_the_same_bits(name, dtype, monkeypatch):
    pictures = {}
    for way, engine in (("short", "native"), ("long", "native"), ("reference", "reference")):
        opt, updating, w = build(name, engine), build(name, engine), {"a": some(0, dtype), "b": some(1, dtype, 7)}
        pictures[way] = []
        for k in range(12):
            g = {"a": some(10 + k, dtype), "b": some(30 + k, dtype, 7)}
            with monkeypatch.context() as patched:
                if way == "long":
                    patched.setattr("fallline._engines.cpu.guard.readable", lambda: False)
                elif way == "short" and k >= 3:
                    patched.setattr("fallline._optimizer.optimizer.HostCall", long_way)
                opt.step(w, g)
                d = update(updating, g, w)
            pictures[way].append([memory_of(opt), *(a.tobytes() for a in (*w.values(), *d.values()))])
    assert pictures["short"] == pictures["reference"]
    assert pictures["long"] == pictures["reference"]


@every_optimiser
@every_engine
@every_half
def test_a_step_is_one_in_float32_rounded_once(name, engine, dtype):
    low, single = build(name, engine), build(name, "reference")
    updating = build(name, engine)
    w = some(0, dtype)
    for k in range(10):
        g = some(k + 1, dtype)
        d = update(single, g.astype(np.float32), w.astype(np.float32))
        with np.errstate(all="ignore"):
            expected, increment = (w.astype(np.float32) + d).astype(dtype), d.astype(dtype)
        before = w.copy()
        low.step(w, g)
        assert bits(w) == bits(expected)
        assert bits(update(updating, g, before)) == bits(increment)
        for slot, array in single.state.items():
            assert same_bits(low.state[slot], array)


@every_engine
@every_half
def test_what_is_too_large_becomes_infinite_and_nan_stays_nan(engine, dtype):
    largest = float(limits(dtype).max)
    w = np.array([largest, -largest, largest, np.nan, np.inf], dtype)
    opt = fl.SGD(0.5, engine=engine, nonfinite="propagate")
    opt.step(w, np.array([-largest, largest, largest, 1, np.inf], dtype))
    assert str(w.astype(float).tolist()) == str([np.inf, -np.inf, float(np.array(largest / 2, dtype)), np.nan, np.nan])


# ================================================================================================ gradients


@every_engine
@every_half
@pytest.mark.parametrize("other", [np.float64, np.float32, np.longdouble, *HALVES], ids=str)
def test_a_gradient_of_another_float_dtype_is_cast_and_one_that_overflows_is_not_finite(engine, dtype, other):
    opt, plain = fl.Adam(0.1, engine=engine), fl.Adam(0.1, engine=engine)
    w, v = some(0, dtype), some(0, dtype)
    for k in range(4):
        g = (np.random.default_rng(k).standard_normal(101)).astype(other)
        opt.step(w, g)
        plain.step(v, g.astype(dtype))
    assert same_bits(w, v)
    if np.dtype(other).itemsize >= 8:
        with pytest.raises(fl.NonFiniteGradient, match="has 101 infinite"):
            opt.step(w, np.full(101, 1e300, other))
        assert same_bits(w, v)


@every_engine
def test_a_gradient_of_16_bits_is_exact_for_a_parameter_of_more(engine):
    for dtype in HALVES:
        opt, plain = fl.Adam(0.1, engine=engine), fl.Adam(0.1, engine=engine)
        w, v = np.ones(101), np.ones(101)
        for k in range(4):
            opt.step(w, some(k, dtype))
            plain.step(v, some(k, dtype).astype(np.float64))
        assert same_bits(w, v)


# ================================================================================================== objects


@every_half
@every_engine
def test_numbers_of_numpy_stay_of_their_dtype(engine, dtype):
    opt, plain, x, w = fl.Adam(0.125, engine=engine), fl.Adam(0.125, engine=engine), dtype.type(1), np.ones(1, dtype)
    for size in (1.0, -3.0, 0.5):
        x = opt.step(x, size)
        plain.step(w, np.array([size], dtype))
        assert type(x) is dtype.type
        assert x == w[0]
    assert type(fl.SGD(engine=engine).update(dtype.type(1))) is dtype.type


@every_half
@every_engine
def test_points_to_report_and_to_look_ahead_to_keep_the_dtype(engine, dtype):
    for opt, point in ((fl.Nesterov(0.1, engine=engine), "rest"), (fl.Momentum(0.1, engine=engine), "lookahead")):
        w = some(0, dtype)
        opt.step(w, some(1, dtype))
        sign = -1 if point == "rest" else 1
        with np.errstate(all="ignore"):
            expected = (w.astype(np.float32) + sign * np.float32(0.9) * opt.state["velocity"]).astype(dtype)
        assert same_bits(getattr(opt, point)(w), expected)


@every_half
def test_an_optimiser_goes_on_after_it_was_copied_pickled_or_loaded(dtype):
    opt, w = fl.Nadam(0.1), some(0, dtype)
    for k in range(4):
        opt.step(w, some(k, dtype))
    loaded = fl.Nadam()
    loaded.load_state_dict(opt.state_dict())
    others = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), loaded]
    vs = [w.copy() for _ in others]
    for k in range(5):
        opt.step(w, some(k, dtype))
        for other, v in zip(others, vs):
            other.step(v, some(k, dtype))
            assert same_bits(v, w)
            assert memory_of(other) == memory_of(opt)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_torch_tensors_of_16_bits_are_stepped_in_their_own_memory(kind):
    torch = need("torch")
    dtype = getattr(torch, kind)
    w = torch.nn.Parameter(torch.linspace(-1, 1, 50, dtype=dtype))
    v = w.detach().float().numpy().astype(kind)
    there, opt, plain = w.data_ptr(), fl.Adam(0.1), fl.Adam(0.1, engine="reference")
    for k in range(6):
        g = torch.full((50,), 0.3 * k, dtype=dtype)
        assert opt.step(w, g) is w
        plain.step(v, g.float().numpy().astype(kind))
        assert (w.data_ptr(), w.dtype) == (there, dtype)
        assert np.array_equal(w.detach().float(), v.astype(np.float32))
    increment = opt.update(torch.ones(50))
    assert increment.dtype is dtype
    assert opt.step(w, np.ones(50)) is w
    eager = fl.Adam(0.1, engine="eager")
    eager.step(w, torch.ones(50))
    assert w.dtype is dtype
    assert eager.state["m"].dtype is torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_jax_arrays_of_16_bits_come_close(kind):
    jnp = need("jax.numpy")
    w, v = jnp.linspace(-1, 1, 50, dtype=kind), np.linspace(-1, 1, 50).astype(np.float32).astype(kind)
    opt, plain = fl.Adam(0.1), fl.Adam(0.1, engine="reference")
    for k in range(5):
        g = np.random.default_rng(k).standard_normal(50).astype(kind)
        w = opt.step(w, jnp.asarray(g) if k % 2 else g)
        plain.step(v, g)
        assert w.dtype == kind
    assert opt.state["m"].dtype == np.float32
    assert opt.update(jnp.ones(50)).dtype == kind
    np.testing.assert_allclose(np.asarray(w).astype(float), v.astype(float), rtol=0.02, atol=0.01)


def test_dtypes_that_are_not_supported_are_refused_by_name():
    for wrong in (np.ones(3, np.longdouble), np.ones(3, int)):
        with pytest.raises(TypeError, match=r"must be float16, .* or complex128. Got (float|int)\d+"):
            fl.SGD().step(wrong, np.ones(3))


def test_ml_dtypes_is_not_loaded_before_a_bfloat16_array_shows_up():
    script = """
import sys, numpy as np, fallline as fl
opt, w = fl.Adam(), [np.ones(3, d) for d in ("f2", "f4", "f8")]
for _ in range(4):
    opt.step(w, [np.ones(3)] * 3)
print("ml_dtypes" in sys.modules)
"""
    assert run_alone(script) == "False\n"
