"""Reference and native engine agree to the bit, parameters and state, for every rule; the eager engine is close."""

import ctypes

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.memory import address
from fallline._engines.llvm.scalars import LAST, native_scalars
from fallline._engines.reference import TILE
from fallline._step.calls.kernels import BUFFER
from needed import need
from support import COMPLEX, FULL, HALVES, NUMBERS, every_dtype, every_precision, limits, normal


@fl.rule
def comparing(g, x, *, lr=1.0):
    """Each comparison, both ways it can turn out, on NaN too."""
    a = fl.where(g < x, 1, 2) + fl.where(g <= x, 4, 8) + fl.where(g > x, 16, 32)
    return lr*(a + fl.where(g >= x, 64, 128) + fl.where(g == x, 256, 512) + fl.where(g != x, 1024, 2048))


MODIFIED = {
    "comparing": lambda **o: fl.Optimizer(comparing, **o),
    "decayed": lambda **o: fl.chain(fl.l2(0.1), fl.clip_value(0.5), fl.Adam(0.1), fl.weight_decay(0.1), **o),
    "climbing": lambda **o: fl.chain(fl.maximize(), fl.NadaMax(0.1), **o),
}
EVERYTHING = {**fl.OPTIMIZERS, **MODIFIED}
LEFT_TO_PYTHON = ["AdEMAMix"]  # the scalars of which need log and exp

every_chain = pytest.mark.parametrize("name", EVERYTHING)
every_chain_or_precision = pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in EVERYTHING for dtype in FULL] + [
        (name, dtype) for name in ("Adam", "decayed") for dtype in HALVES + COMPLEX], ids=str)  # fmt: skip


def bits(array):
    """An array to the bit, every NaN counted as the same value."""
    a = np.array(array).reshape(-1)
    a = a.view(a.real.dtype)
    a[np.isnan(a)] = np.nan
    return a.tobytes()


def both(name, **options):
    return [EVERYTHING[name](engine=engine, **options) for engine in ("reference", "native")]


def assert_same_bits(name, w, gradients, **options):
    """Step both engines over the gradients and compare increments, parameters and state after each step."""
    opts = both(name, **options)
    updaters = both(name, **options)
    ws = [w.copy(), w.copy()]
    for step, g in enumerate(gradients):
        increments = [bits(u.update(g, params=w)) for u in updaters]
        for o, own in zip(opts, ws):
            assert o.step(own, g) is own
        assert increments[0] == increments[1], f"increment, step {step + 1}"
        assert bits(ws[0]) == bits(ws[1]), f"parameters, step {step + 1}"
        for slot in opts[0].state:
            assert bits(opts[0].state[slot]) == bits(opts[1].state[slot]), f"{slot}, step {step + 1}"
    return opts, ws


def any_numbers(rng, shape, dtype, odd):
    """Numbers of many sizes; a share of them odd: half of these special, half of any bits at all."""
    real = np.empty(0, dtype).real.dtype
    shape += (2,) * (dtype in COMPLEX)
    with np.errstate(all="ignore"):
        usual = (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 4, shape)).astype(real)
        special = np.array([0, -0.0, 1, -1, 1e-40, -1e-310, np.nan, np.inf, -np.inf, 1e20, float(limits(dtype).tiny)])
        special = rng.choice(special, shape).astype(real)
    anything = np.frombuffer(rng.bytes(usual.nbytes), real).reshape(shape)
    drawn = rng.uniform(size=shape)
    numbers = np.where(drawn >= odd, usual, np.where(drawn < odd / 2, special, anything))
    return numbers.view(dtype)[..., 0] if dtype in COMPLEX else numbers


@every_chain
@every_precision
@pytest.mark.parametrize("odd", [0.0, 0.4])
def test_engines_agree_to_the_bit_on_any_numbers_and_shapes(name, dtype, odd):
    rng = np.random.default_rng(7)
    for shape in ((), (0, 3), (7,), (4, 3, 2), (5, 211)):
        w, *gradients = (any_numbers(rng, shape, dtype, odd) for _ in range(6))
        with np.errstate(all="ignore"):
            assert_same_bits(name, w, gradients, nonfinite="propagate")


@every_chain_or_precision
@pytest.mark.parametrize("length", [1, 7, 255, TILE - 1, TILE, TILE + 1, 2 * TILE + 13])
def test_engines_agree_to_the_bit_at_every_length_around_a_tile(name, dtype, length):
    rng = np.random.default_rng(length)
    far = 4 if dtype == np.float16 else 12
    gradients = [(rng.standard_normal(length) * 10.0 ** rng.integers(-12, far, length)).astype(dtype) for _ in range(4)]
    assert_same_bits(name, rng.standard_normal(length).astype(dtype), gradients)


@every_chain_or_precision
def test_engines_agree_to_the_bit_through_long_runs_that_underflow(name, dtype):
    """Of gradients that fade past the smallest normal number, and whose squares do."""
    rng, tiny = np.random.default_rng(0), float(limits(dtype).tiny)
    sizes = np.where(rng.uniform(size=101) < 0.5, tiny, tiny**0.5) * 10.0 ** rng.uniform(0, 3, 101)
    w = rng.standard_normal(101).astype(dtype)
    start = [(rng.standard_normal(101) * sizes).astype(dtype) for _ in range(3)]
    assert_same_bits(name, w, start + [np.zeros(101, dtype)] * 60)


@pytest.mark.slow
@every_chain
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_strided_leaf_gets_the_bits_of_a_contiguous_one_and_its_neighbours_keep_theirs(name, engine):
    rng = np.random.default_rng(1)
    for n in (5, BUFFER + 3):
        canvas = rng.standard_normal((n, 4)).astype(np.float32)
        before, w, strided = canvas.copy(), canvas[:, 1].copy(), canvas[:, 1]
        plain, other = EVERYTHING[name](engine=engine), EVERYTHING[name](engine=engine)
        for _ in range(3):
            g = rng.standard_normal((n, 2)).astype(np.float32)
            plain.step(w, g[:, 0].copy())
            other.step(strided, g[:, 0])
        assert bits(strided) == bits(w)
        assert np.array_equal(canvas[:, [0, 2, 3]], before[:, [0, 2, 3]])


@pytest.mark.needs("coordinates alone")
@every_chain
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_one_array_or_many_get_the_same_bits(name, engine):
    rng = np.random.default_rng(2)
    whole = rng.standard_normal(1000)
    parts = {f"part{k}": p.copy() for k, p in enumerate(np.split(whole, [1, 8, 500]))}
    a, b = EVERYTHING[name](engine=engine), EVERYTHING[name](engine=engine)
    for _ in range(5):
        g = rng.standard_normal(1000)
        a.step(whole, g)
        b.step(parts, dict(zip(parts, np.split(g, [1, 8, 500]))))
        for slot, array in a.state.items():
            many = [array] * 4 if slot in NUMBERS.get(name, ()) else np.split(array, [1, 8, 500])
            assert list(map(bits, many)) == list(map(bits, b.state[slot].values()))
    assert bits(whole) == bits(np.concatenate(list(parts.values())))


@every_chain
@pytest.mark.parametrize("size", [1, 7, 64, 1 << 30])
def test_tiles_of_any_size_give_the_same_bits(name, size, monkeypatch):
    rng, results = np.random.default_rng(6), []
    start, gradients = rng.standard_normal(200), rng.standard_normal((4, 200))
    for tile in (None, size):
        if tile:
            monkeypatch.setattr("fallline._engines.reference._Reference.tile", tile)
        opt, w = EVERYTHING[name](engine="reference"), start.copy()
        for g in gradients:
            opt.step(w, g)
        results.append([bits(w), *(bits(a) for a in opt.state.values())])
    assert results[0] == results[1]


@every_chain
def test_step_is_the_increment_of_update_added_to_the_bit(name):
    rng = np.random.default_rng(3)
    a = rng.standard_normal(50)
    a[:5] = [0.0, -0.0, 1e-310, -1e-310, 1.0]
    b = a.copy()
    stepping, updating = EVERYTHING[name](), EVERYTHING[name]()
    for _ in range(6):
        g = rng.standard_normal(50)
        g[:2] = 0
        stepping.step(a, g)
        b += updating.update(g, params=b)
        assert bits(a) == bits(b)


@pytest.mark.needs("other arrays")
@every_chain
@every_precision
def test_the_eager_engine_is_close_to_the_reference(name, dtype):
    rng = np.random.default_rng(4)
    w = normal(rng, (4, 5), dtype)
    v = w.copy()
    eager, reference = EVERYTHING[name](engine="eager"), EVERYTHING[name](engine="reference")
    for _ in range(20):
        g = normal(rng, (4, 5), dtype)
        assert eager.step(w, g) is w
        reference.step(v, g)
    np.testing.assert_allclose(w.astype(complex), v.astype(complex),
                               rtol=(4 if dtype in HALVES else 100) * float(limits(dtype).eps))
    assert eager.engine.startswith("eager")


@every_precision
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_settings_per_coordinate_give_each_coordinate_what_the_number_would(dtype, engine):
    rng = np.random.default_rng(5)
    rates = np.array([0.1, 0.01, 0.0])
    w = normal(rng, 3, dtype)
    singles = [w[k : k + 1].copy() for k in range(3)]
    opt = fl.Adam(lr=rates, engine=engine)
    opts = [fl.Adam(lr=float(r), engine=engine) for r in rates]
    for _ in range(5):
        g = normal(rng, 3, dtype)
        opt.step(w, g)
        for k in range(3):
            opts[k].step(singles[k], g[k : k + 1])
    assert bits(w) == bits(np.concatenate(singles))


def test_scalars_follow_ieee_where_python_would_raise():
    divided = fl.rule(lambda g, t, *, lr=1.0: -lr / (t - 1) * g)
    rooted = fl.rule(lambda g, t, *, lr=1.0: fl.sqrt(0.5 - t) * g)
    for engine in ("reference", "native", "eager"):
        opt = fl.Optimizer(divided, engine=engine)
        assert opt.step(np.zeros(1), np.ones(1)) == -np.inf
        assert opt.step(np.zeros(1), np.ones(1)) == -1.0
        assert np.isnan(fl.Optimizer(rooted, engine=engine).step(np.zeros(1), np.ones(1)))


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_a_where_on_a_scalar_condition_chooses_by_the_step(engine):
    @fl.rule
    def halting(g, t, *, lr=1.0):
        return fl.where(t > 2, -0.5*lr*g, -lr*g)

    opt = fl.Optimizer(halting, engine=engine)
    w = np.zeros(2)
    for expected in (-1.0, -2.0, -2.5):
        opt.step(w, np.ones(2))
        assert w.tolist() == [expected] * 2


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_a_condition_on_settings_chooses_by_coordinate_where_they_differ_by_coordinate(engine):
    @fl.rule
    def turning(g, *, lr=0.1):
        return fl.where(lr > 0.5, -g, g)

    opt = fl.Optimizer(turning, lr=np.array([0.1, 0.9]), engine=engine)
    assert opt.step(np.zeros(2), np.ones(2)).tolist() == [1.0, -1.0]


def test_a_number_of_the_state_too_large_for_the_dtype_is_named_without_what_is_no_ones_setting():
    opt, w, g = fl.Prodigy(), np.ones(100, np.float32), np.full(100, 0.01, np.float32)  # no minimum to find
    with pytest.raises(ValueError, match=r"^A setting of Prodigy, or a number of its state, is too large .* state d=") \
            as refused:
        any(opt.step(w, g) is None for _ in range(3000))
    assert "total" not in str(refused.value)


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_a_setting_too_large_for_the_dtype_is_refused_rather_than_infinite(engine):
    opt, w = fl.SGD(1e39, engine=engine), np.ones(3, np.float32)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"A setting of SGD is too large for float32: sgd.lr=1e\+39"):
            opt.step(w, np.zeros(3, np.float32))
    opt.lr = 1.0
    for _ in range(3):
        opt.step(w, np.zeros(3, np.float32))
    opt.lr = 1e39
    with pytest.raises(ValueError, match="too large for float32"):
        opt.step(w, np.zeros(3, np.float32))
    assert w.tolist() == [1.0] * 3
    assert opt.t == 3


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_a_rule_may_return_plain_numbers(engine):
    constant = fl.rule(lambda g, last=0.0: (-0.25, 7.0))
    opt = fl.Optimizer(constant, engine=engine)
    w = np.ones(3)
    opt.step(w, np.ones(3))
    assert w.tolist() == [0.75] * 3
    assert np.asarray(opt.state["last"]).tolist() == [7.0] * 3


@pytest.mark.parametrize("formula", [
    lambda b, t: b**t, lambda b, t: fl.log(1 + b), lambda b, t: fl.exp((b - 1) * 1e4),
    lambda b, t: b + fl.exp(fl.minimum(b, 0)) - fl.where(fl.log(fl.maximum(1, b)) == 0, 1, 2),
])  # fmt: skip
def test_a_division_by_zero_follows_ieee_whatever_has_become_zero(formula):
    fading = fl.rule(lambda g, t, *, lr=1.0, beta=0.0: -lr / formula(beta, t) * g)
    for engine in ("reference", "native", "eager"):
        opt = fl.Optimizer(fading, engine=engine)
        for _ in range(3):
            assert opt.step(np.zeros(1), np.ones(1)) == -np.inf


@fl.rule
def every_word(g, t, *, lr=0.1, beta=0.5):
    """Each word of the vocabulary on scalars, and what Python answers with an exception."""
    a = fl.where(t < 5, beta**t, fl.where(t >= 256, -fl.sqrt(t), abs(lr - t)))
    b = lr / (lr - lr) + fl.sqrt(-beta) * fl.maximum(lr, beta) + fl.minimum(a, fl.sign(-t))
    c = fl.where(g > 0, fl.where(t != 4, a, 2), lr) * (1 - lr) ** 3 * (beta + 0.4) ** -300
    return fl.where(t == 3, a, b) * g + fl.where(beta <= lr, 1.0, 1 - lr**t) + c


@pytest.mark.parametrize("name", [*(name for name in EVERYTHING if name not in LEFT_TO_PYTHON), "every word"])
@every_dtype
def test_scalars_in_machine_code_are_those_of_python(name, dtype):
    opt = {**EVERYTHING, "every word": lambda: fl.Optimizer(every_word)}[name]()
    program, tiny = opt._chain.stepping, float(np.finfo(dtype).tiny)
    hyper = np.array([opt.hyper.get(q, 0.1) for q in program.hyper] or [0.0])
    found = np.empty(len(program.scalars) + 1, dtype)
    compute = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 2, ctypes.c_double, *[ctypes.c_void_p] * 2)(
        native_scalars(program, dtype, program.scalars))  # fmt: skip
    for t in (1, 2, 3, 4, 5, 255, 256, 257, 511, 512, 1000, 65_537, 10**9 + 7, 2**51 + 1, LAST):
        with np.errstate(all="ignore"):
            expected = program.evaluate(hyper[: len(program.hyper)].tolist(), t, tiny)[: len(program.scalars)]
            expected = np.array(expected, dtype)
        assert compute(t, tiny, address(hyper), address(found)) == 0
        assert bits(found[:-1]) == bits(expected), t


def test_scalars_that_the_dtype_cannot_hold_are_noticed():
    program = fl.SGD(1.0)._chain.stepping
    hyper, found = np.array([3.5e38]), np.empty(9, np.float64)
    for dtype, refused in ((np.float32, 1), (np.float64, 0)):
        compute = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 2, ctypes.c_double, *[ctypes.c_void_p] * 2)(
            native_scalars(program, np.dtype(dtype), program.scalars))  # fmt: skip
        assert compute(1, 1e-38, address(hyper), address(found)) == refused


@pytest.mark.parametrize("name", LEFT_TO_PYTHON)
def test_rules_whose_scalars_need_a_librarys_function_are_left_to_python(name):
    program = EVERYTHING[name]()._chain.stepping
    assert native_scalars(program, np.dtype(np.float32), program.scalars) == 0


@pytest.mark.parametrize("factor", [lambda t, b: b ** (t / 2), lambda t, b: t**2, lambda t, b: b ** (t * t),
                                    lambda t, b: t * t - b, lambda t, b: b**0.5, lambda t, b: fl.log(b),
                                    lambda t, b: fl.exp(b / t)])  # fmt: skip
def test_scalars_that_machine_code_cannot_be_sure_of_are_left_to_python(factor):
    rule = fl.rule(lambda g, t, *, b=0.5: factor(t, b) * g)
    program = fl.Optimizer(rule)._chain.stepping
    assert native_scalars(program, np.dtype(np.float32), program.scalars) == 0


@pytest.mark.parametrize("name", EVERYTHING)
@every_dtype
def test_another_librarys_flush_to_zero_changes_no_bit(name, dtype):
    torch = need("torch")
    rng = np.random.default_rng(0)
    smallest = np.finfo(dtype).smallest_subnormal
    gradients = [(rng.integers(-(2**20), 2**20, 50) * smallest).astype(dtype) for _ in range(6)]

    def run(engine, flush):
        opt, w, increments = EVERYTHING[name](engine=engine), np.full(50, smallest * 1000, dtype), []
        try:
            if not torch.set_flush_denormal(flush):
                pytest.skip("this processor does not flush")
            for g in gradients:
                opt.step(w, g)
                increments.append(opt.update(g, params=w).tobytes())
        finally:
            torch.set_flush_denormal(False)
        return bits(w), increments, {slot: bits(a) for slot, a in opt.state.items()}

    expected = run("reference", False)
    assert run("reference", True) == run("native", True) == run("native", False) == expected
