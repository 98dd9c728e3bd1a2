"""Complex parameters are stepped as pairs of reals, each part a coordinate of its own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
from needed import need
from short_way import long_way
from support import SLOTS, build, every_complex, every_engine, every_optimiser, memory_of, normal, same_bits, update

every_kind_of_engine = pytest.mark.parametrize("engine", ["reference", "native", "eager"])


def some(seed, dtype, shape=(7, 5)):
    return normal(np.random.default_rng(seed), shape, dtype)


def pairs(array):
    """The parts of complex numbers, one after the other."""
    return np.stack((array.real, array.imag), -1)


@pytest.mark.needs("complex arrays")
@every_optimiser
@every_engine
@every_complex
def test_a_complex_parameter_gets_the_bits_of_the_pair_of_its_parts(name, engine, dtype, monkeypatch):
    opt, plain, updating, single = (build(name, engine) for _ in range(4))
    w = {"a": some(0, dtype), "b": some(1, dtype, ())}
    v = {key: pairs(leaf) for key, leaf in w.items()}
    for k in range(12):
        g = {"a": some(10 + k, dtype), "b": some(30 + k, dtype, ())}
        with monkeypatch.context() as patched:
            if engine == "native" and k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            assert opt.step(w, g) is w
            increments = update(updating, g, w)
        parts = {key: pairs(leaf) for key, leaf in g.items()}
        plain.step(v, parts)
        expected = update(single, parts, v)
        for key, leaf in w.items():
            assert (leaf.dtype, increments[key].dtype) == (dtype, dtype)
            assert same_bits(pairs(leaf), v[key])
            assert same_bits(pairs(increments[key]), expected[key])
            for slot in SLOTS[name]:
                tree = plain.state[slot]
                assert opt.state[slot][key].dtype == dtype
                assert opt.state[slot][key].shape == leaf.shape
                assert same_bits(pairs(opt.state[slot][key]), tree[key])


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_tensors_follow_the_gradients_of_torch_as_its_own_optimisers_do(name, dtype, monkeypatch):
    torch = need("torch")
    start = torch.tensor(some(0, dtype))
    w, v = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    opt = fl.SGD(0.1) if name == "SGD" else fl.Adam(0.1, eps=0.0)
    theirs = torch.optim.SGD([v], 0.1) if name == "SGD" else torch.optim.Adam([v], 0.1, eps=0.0)
    there = w.data_ptr()
    for k in range(12):
        for p in (w, v):
            p.grad = None
            ((p - (2 + 1j)).abs() ** 2).sum().backward()
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            assert opt.step(w, w.grad) is w
        theirs.step()
        torch.testing.assert_close(w, v, rtol=1e-5, atol=1e-6)
    assert w.data_ptr() == there
    assert opt.update(w.grad).dtype is w.dtype


def test_a_lazily_conjugated_tensor_may_be_a_gradient_but_no_parameter():
    torch = need("torch")
    w, g = torch.zeros(3, dtype=torch.complex64), torch.full((3,), 1 + 2j)
    opt = fl.SGD(1.0)
    for _ in range(4):
        opt.step(w, g.conj())
    assert w.tolist() == [-4 + 8j] * 3
    with pytest.raises(TypeError, match=r"lazily conjugated view: call .resolve_conj\(\)"):
        opt.step(w.conj(), g)


@pytest.mark.slow
def test_jax_arrays_come_close():
    jnp = need("jax.numpy")
    v = some(0, "complex64")
    w, opt, plain = jnp.asarray(v), fl.Adam(0.1), fl.Adam(0.1)
    for k in range(4):
        g = some(k, "complex64")
        w = opt.step(w, jnp.asarray(g) if k % 2 else g)
        plain.step(v, g)
    assert (w.dtype, opt.state["m"].dtype) == (np.complex64, np.complex64)
    np.testing.assert_allclose(w, v, rtol=1e-5)
    assert opt.update(jnp.ones((7, 5))).dtype == np.complex64


@every_kind_of_engine
@every_complex
def test_a_real_gradient_is_cast_and_a_complex_one_for_a_real_parameter_refused(engine, dtype):
    opt, plain = fl.Adam(0.1, engine=engine), fl.Adam(0.1, engine=engine)
    w, v = some(0, dtype), some(0, dtype)
    for k in range(4):
        g = np.random.default_rng(k).standard_normal((7, 5))
        opt.step(w, g)
        plain.step(v, g.astype(dtype))
    assert same_bits(w, v)
    opt, x = fl.Adam(0.1, engine=engine), np.ones((7, 5))
    for _ in range(4):
        with pytest.raises(TypeError, match=r"gradient must be real, as the parameter is float64\. Got complex\d+: "):
            opt.step(x, some(0, dtype))
        opt.step(x, np.zeros((7, 5)))
    assert np.array_equal(x, np.ones((7, 5)))


@every_kind_of_engine
@every_complex
def test_settings_of_each_coordinate_hold_for_both_parts(engine, dtype):
    rates, starts = np.array([0.1, 0.01, 0.0]), np.array([1e-8, 0.5, 1.0])
    opt, w = fl.Adam(rates, eps=starts, engine=engine), some(0, dtype, 3)
    singles = [fl.Adam(float(r), eps=float(s), engine=engine) for r, s in zip(rates, starts)]
    vs = [w[k : k + 1].copy() for k in range(3)]
    for seed in range(5):
        g = some(seed, dtype, 3)
        opt.step(w, g)
        for k in range(3):
            singles[k].step(vs[k], g[k : k + 1])
    assert same_bits(w, np.concatenate(vs))


@every_engine
@pytest.mark.parametrize("bad", [complex(np.nan, 0), complex(0, np.inf), complex(-np.inf, 1), complex(1, np.nan)])
def test_a_part_that_is_not_finite_is_found_and_counted_once_for_its_number(engine, bad):
    opt, w = fl.Adam(engine=engine), np.ones((300, 200), complex)
    for steps in range(4):
        for layout in (np.ascontiguousarray, np.asfortranarray):
            g = layout(np.ones((300, 200), complex))
            g[-1, -1] = bad
            with pytest.raises(fl.NonFiniteGradient, match=r"has 1 (NaN|infinite)"):
                opt.step(w, g)
        assert opt.t == steps
        opt.step(w, np.ones((300, 200), complex))


@every_engine
@every_complex
def test_an_increment_of_zero_changes_no_bit(engine, dtype):
    w = np.array([complex(-0.0, 0.0), complex(0.0, -0.0), complex(-0.0, -0.0), 1j], dtype)
    kept, opt = w.copy(), fl.Adam(engine=engine, nonfinite="skip")
    for g in (np.zeros(4, dtype), np.full(4, np.nan, dtype)):
        w += opt.update(g)
        opt.step(w, g)
        assert same_bits(w, kept)


@every_kind_of_engine
def test_a_python_or_numpy_number_changes_only_in_what_is_returned(engine):
    for one in (complex, np.complex64):
        opt, plain = fl.Adam(0.1, engine=engine), fl.Adam(0.1, engine=engine)
        x, w = one(1 + 1j), np.array([1 + 1j], one)
        for size in (1 - 1j, 2.0, -3j):
            x = opt.step(x, size)
            plain.step(w, np.array([size], one))
            assert type(x) is one
            assert x == w[0]
        assert np.iscomplexobj(opt.update(1.0))
    with pytest.raises(TypeError, match=r"must be real, as the parameter is float64\. Got complex128"):
        fl.Adam(engine=engine).step(1.0, 1j)


@every_kind_of_engine
@every_complex
def test_points_to_report_and_to_look_ahead_to_are_complex(engine, dtype):
    for rule, point, sign in ((fl.Nesterov, "rest", -1), (fl.Momentum, "lookahead", 1)):
        opt, w = rule(0.1, engine=engine), some(0, dtype)
        opt.step(w, some(1, dtype))
        found = getattr(opt, point)(w)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, w + sign * 0.9 * opt.state["velocity"], rtol=1e-6)


@every_complex
def test_an_optimiser_goes_on_after_it_was_copied_pickled_loaded_or_saved(dtype, tmp_path):
    opt, w = fl.Nadam(0.1), some(0, dtype)
    for k in range(4):
        opt.step(w, some(k, dtype))
    loaded = fl.Nadam()
    loaded.load_state_dict(opt.state_dict())
    opt.save(tmp_path / "state")
    others = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), loaded, fl.load(tmp_path / "state")]
    vs = [w.copy() for _ in others]
    for k in range(5):
        opt.step(w, some(k, dtype))
        for other, v in zip(others, vs):
            other.step(v, some(k, dtype))
            assert same_bits(v, w)
            assert memory_of(other) == memory_of(opt)
