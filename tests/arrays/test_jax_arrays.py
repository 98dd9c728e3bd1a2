"""Arrays of JAX outside jit: one compiled program steps all of them, to the bits that NumPy's get."""

import _thread
import copy
import importlib
import logging
import pickle
import threading

import ml_dtypes
import numpy as np
import pytest

import fallline as fl
from needed import need
from support import run_alone

OF_LEAVES = {name: cls for name, cls in fl.OPTIMIZERS.items() if not cls.rule.whole_leaf}
SUMMING = {name for name, cls in OF_LEAVES.items() if cls()._chain.stepping.readings}  # in another order than NumPy's
DTYPES = {"f": np.float32, "d": np.float64, "h": np.float16, "b": ml_dtypes.bfloat16, "c": np.complex64}
REALS = ("f", "d", "b")


def numbers(rng, dtype, shape=(30,)):
    """Numbers of many sizes."""
    drawn = rng.standard_normal((2, *shape)) * 10.0 ** rng.integers(-5, 2, (2, *shape))
    return (drawn[0] + 1j * drawn[1] if dtype == np.complex64 else drawn[0]).astype(dtype)


def trees(seed, dtypes=("f", "h"), shape=(30,)):
    """As many trees of arrays of NumPy as are asked for."""
    rng = np.random.default_rng(seed)
    while True:
        yield {name: numbers(rng, DTYPES[name], shape) for name in dtypes}


def in_jax(tree):
    jnp = need("jax.numpy")
    return {name: jnp.asarray(array) for name, array in tree.items()}


def bits(tree):
    return {name: np.asarray(array).tobytes() for name, array in tree.items()}


@pytest.mark.parametrize("name", OF_LEAVES)
def test_every_rule_gives_jax_arrays_the_bits_of_numpys(name):
    with need("jax").enable_x64(True):
        theirs, ours, given = OF_LEAVES[name](), OF_LEAVES[name](), trees(0, REALS)
        v = next(given)
        w = in_jax(v)
        for g in (next(given) for _ in range(6)):
            w = theirs.step(w, in_jax(g))
            ours.step(v, g)
            if name not in SUMMING:
                assert bits(w) == bits(v)
        assert {k: a.dtype for k, a in w.items()} == {k: DTYPES[k] for k in REALS}
        for slot, tree in ours.state.items():
            for k in tree if isinstance(tree, dict) else ():
                wide = 1e-12 if k == "d" else 1e-5
                np.testing.assert_allclose(theirs.state[slot][k], tree[k], rtol=wide, atol=wide * np.abs(tree[k]).max())
                assert name in SUMMING or bits(theirs.state[slot]) == bits(tree)


def test_increments_of_every_dtype_have_the_bits_of_numpys():
    with need("jax").enable_x64(True):
        theirs, ours, given = fl.Adam(), fl.Adam(), trees(1, DTYPES)
        for g in (next(given) for _ in range(4)):
            assert bits(theirs.update(in_jax(g))) == bits(ours.update(g))


@fl.rule
def shrinking(g, x, *, lr: fl.NonNegative = 0.5):
    """One that takes no notice of the gradient."""
    return -lr*x


CHAINS = {
    "sums and settings by leaf": lambda: fl.chain(fl.clip_norm(1.0), fl.Adam({"f": 0.1, "h": 0.2}), fl.weight_decay()),
    "settings by coordinate": lambda: fl.Adam({"f": np.linspace(0.01, 0.1, 30), "h": 0.1}),
    "a schedule": lambda: fl.Momentum(fl.schedules.cosine(0.1, steps=10)),
    "a partition": lambda: fl.partition({"some": fl.Adam(0.1), "others": fl.Lion(0.1)}, {"f": "some", "h": "others"}),
    "gathered gradients": lambda: fl.accumulate(2, fl.Adam(0.1)),
    "no gradient": lambda: fl.Optimizer(shrinking),
    "bounds": lambda: fl.chain(fl.SGD(0.5), fl.bounds(-1.0, 1.0)),
    "an average": lambda: fl.chain(fl.RMSProp(0.1), fl.average(0.9)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_all_that_steps_arrays_of_numpy_steps_those_of_jax(name):
    theirs, ours, given = CHAINS[name](), CHAINS[name](), trees(2)
    v = next(given)
    w = in_jax(v)
    for t, g in zip(range(6), given):
        w = theirs.step(w, {k: None if t == 3 and k == "h" else a for k, a in in_jax(g).items()})
        ours.step(v, {k: None if t == 3 and k == "h" else a for k, a in g.items()})
        if "sums" in name:
            assert all(np.allclose(w[k].astype(float), v[k].astype(float), rtol=1e-3, atol=1e-3) for k in v)
        else:
            assert bits(w) == bits(v), t


def test_leaves_of_every_kind_stand_beside_arrays_of_jax():
    jnp = need("jax.numpy")
    theirs, ours = fl.Adam(0.1), fl.Adam(0.1)
    shapes = [(0, 3), (), (2, 3), (4,), (70,)]
    v = [np.ones(shape, np.float32) for shape in shapes] + [2.0]
    w = [*map(jnp.asarray, v[:3]), v[3].copy(), jnp.asarray(v[4]), 2.0, jnp.asarray(1.0)]  # of a weak type, the last
    v.append(np.ones((), np.float32))
    for t in range(4):
        g = [np.full(np.shape(leaf), 0.1 * t + 0.1) for leaf in v]
        w = theirs.step(w, [a if k % 2 else jnp.asarray(a, "float16" if k == 2 else None) for k, a in enumerate(g)])
        v = ours.step(v, [a.astype(np.float16) if k == 2 else a.astype(np.float32) if k % 2 == 0 else a
                          for k, a in enumerate(g)])
        assert [np.asarray(a).tobytes() for a in w] == [np.asarray(a).tobytes() for a in v]
    assert [type(leaf).__name__ for leaf in w] == ["ArrayImpl"] * 3 + ["ndarray", "ArrayImpl", "float", "ArrayImpl"]


@fl.rule
def keeping(g, x, before="x", last=0, twice=0, *, lr: fl.NonNegative = 0.5):
    """Slots that become what the caller gave, and each other's."""
    return -lr*(g + before + last - twice), x, g, g


def test_what_was_given_or_handed_out_stays_as_it_is():
    """Only state that nobody else has is donated: it is that which is gone behind a step."""
    need("jax")
    opt, given = fl.chain(fl.Optimizer(keeping), fl.average(0.5)), trees(3)
    w = in_jax(next(given))
    held, known = [], []
    for t in range(6):
        g = in_jax(next(given))
        if t == 4:
            g = {**g, "h": None}  # whose state is not stepped, and handed out before
        new = opt.step(w, g)
        for tree in (w, g, new, dict(opt.state), opt.averaged, opt.rest(new), opt.state_dict()["state"]):
            held.append(tree)
            known.append(copy.deepcopy({k: np.asarray(a) for k, a in flat(tree)}))
        for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
            held.append(twin)
            known.append(copy.deepcopy({k: np.asarray(a) for k, a in flat(dict(twin.state))}))
        w = new
    for tree, was in zip(held, known):
        now = {k: np.asarray(a) for k, a in flat(dict(tree.state) if isinstance(tree, fl.Optimizer) else tree)}
        assert bits(now) == bits(was)


def test_parameters_that_come_back_are_the_callers_own_who_may_donate_them():
    jax, jnp = need("jax"), need("jax.numpy")
    twice = jax.jit(lambda tree: jax.tree.map(lambda a: 2 * a, tree), donate_argnums=0)
    opt = fl.chain(fl.SGD(0.5), fl.average(0.0))  # whose state has the numbers of what comes back
    w = {"a": jnp.ones(100)}
    for t in range(3):
        w = twice(opt.step(w, w))
        assert (w["a"][0], opt.averaged["a"][0]) == (1.0, 0.5), t


def flat(tree, path=""):
    """The arrays of a tree by path."""
    if not hasattr(tree, "items"):
        return [] if tree is None else [(path, tree)]
    return [item for k, own in tree.items() for item in flat(own, f"{path}/{k}")]


def compilations(caplog, act):
    """How often JAX has compiled while something was done."""
    caplog.clear()
    with need("jax").log_compiles(), caplog.at_level(logging.WARNING):
        act()
    return sum("Finished XLA compilation" in record.getMessage() for record in caplog.records)


def test_nothing_is_compiled_anew_for_other_numbers(caplog):
    jnp = need("jax.numpy")
    given = trees(4, shape=(31,))
    opt = fl.chain(fl.clip_norm(1.0), fl.Adam(fl.schedules.cosine(0.1, steps=9)), fl.weight_decay())
    held = {"w": opt.step(in_jax(next(given)), in_jax(next(given)))}

    def steps(opt, count=3):
        for k in range(count):
            opt.hyper["weight_decay.rate"] = 0.1 * k
            held["w"] = opt.step(held["w"], held.get("g") or in_jax(next(given)))

    assert compilations(caplog, lambda: steps(opt)) == 0
    twin = copy.deepcopy(opt)
    assert compilations(caplog, lambda: steps(twin)) == 0
    held["g"] = {"f": jnp.ones(31), "h": None}
    assert compilations(caplog, lambda: steps(opt, 1)) > 0
    assert compilations(caplog, lambda: steps(opt)) == 0
    held["g"] = None
    opt.lr = {"f": 0.1, "h": 0.1}
    steps(opt)
    opt.lr = {"f": 0.1, "h": 0.2}
    assert compilations(caplog, lambda: steps(opt)) == 0


def test_many_leaves_are_stepped_by_a_few_programs_and_a_nan_in_any_is_named():
    jnp = need("jax.numpy")
    w, v = [jnp.full(3, float(k)) for k in range(150)], [np.full(3, k, np.float32) for k in range(150)]
    opt, ours = fl.Momentum(0.1), fl.Momentum(0.1)
    for _ in range(3):
        w = opt.step(w, w)
        ours.step(v, v)
    assert [np.asarray(a).tobytes() for a in w] == [a.tobytes() for a in v]
    with pytest.raises(fl.NonFiniteGradient, match=r"141 has 3 NaN\. Nothing changed"):
        opt.step(w, [a * jnp.nan if k == 141 else a for k, a in enumerate(w)])
    assert opt.t == 3


def test_a_step_that_fails_before_it_runs_changes_nothing_and_one_that_fails_then_leaves_a_torn_optimizer(monkeypatch):
    jnp = need("jax.numpy")
    compiled = need("fallline._engines.jax.compiled")
    opt, w, g = fl.Adam(0.1), jnp.ones(5), jnp.ones(5)
    w = opt.step(w, g)
    before = np.asarray(opt.state["m"]).tobytes()

    def failing(*given):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(compiled, "compiled", failing)
        with pytest.raises(MemoryError):
            opt.update(g)
    assert (opt.t, np.asarray(opt.state["m"]).tobytes()) == (1, before)
    w = opt.step(w, g)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "called", failing)
        with pytest.raises(MemoryError):
            opt.step(w, g)
    with pytest.raises(fl.errors.TornOptimizer):
        opt.step(w, g)


def test_arrays_of_float64_are_stepped_where_jax_makes_none():
    jax, jnp = need("jax"), need("jax.numpy")
    with jax.enable_x64(True):
        w, g = jnp.ones(3), jnp.full(3, 0.3)
    theirs, ours, v = fl.SGD(0.1), fl.SGD(0.1), np.ones(3)
    for _ in range(3):
        w = theirs.step(w, g)
        ours.step(v, np.full(3, 0.3))
    assert (w.dtype, np.asarray(w).tobytes()) == (np.float64, v.tobytes())


def test_a_step_is_taken_where_jit_is_disabled():
    jax, jnp = need("jax"), need("jax.numpy")
    with jax.disable_jit():
        assert fl.SGD(0.5).step(jnp.ones(2), jnp.ones(2)).tolist() == [0.5, 0.5]


def test_an_older_jax_is_refused_in_a_sentence(monkeypatch):
    engine = need("fallline._engines.jax")
    monkeypatch.delattr(need("jax"), "enable_x64")
    with pytest.raises(ImportError, match=r"arrays of JAX 0\.8 or newer: pip install -U jax\. Got "):
        importlib.reload(engine)


ON_FOUR = """
import warnings
warnings.simplefilter("error")
import jax, numpy as np, fallline as fl
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

devices = jax.devices()
mesh = Mesh(np.array(devices), ("d",))
cut, whole = NamedSharding(mesh, P("d")), NamedSharding(mesh, P())
rng = np.random.default_rng(0)
opt, ours = fl.Adam(0.1), fl.Adam(0.1)
v = {"W": rng.standard_normal((16, 4), np.float32), "b": rng.standard_normal(4, np.float32)}
w = {"W": jax.device_put(v["W"], cut), "b": jax.device_put(v["b"], whole)}
for t in range(4):
    g = {k: rng.standard_normal(a.shape, np.float32) for k, a in v.items()}
    w = opt.step(w, g if t == 2 else {"W": jax.device_put(g["W"], cut), "b": jax.device_put(g["b"], whole)})
    ours.step(v, g)
print(all(np.array_equal(w[k], v[k]) for k in v), w["W"].sharding == opt.state["m"]["W"].sharding == cut)

norm = fl.chain(fl.clip_norm(1.0), fl.SGD(0.5))
apart = [jax.device_put(np.ones(8, np.float32), d) for d in devices[1:3]] + [jax.numpy.ones(9)]
apart = norm.step(apart, [*apart[:2], jax.numpy.ones(9)])
print([a.device.id for a in apart], [a.committed for a in apart], [float(a[0]) for a in apart])
for call in (lambda: norm.step(apart, [apart[1], apart[1], apart[2]]),
             lambda: opt.step({k: jax.device_put(a, devices[3]) for k, a in w.items()}, g)):
    try:
        call()
    except TypeError as error:
        print(error)
print(norm.t, opt.t)
"""


def test_arrays_are_stepped_on_the_devices_that_they_are_on():
    need("jax")
    said = run_alone(ON_FOUR, XLA_FLAGS="--xla_force_host_platform_device_count=4").splitlines()
    assert said == [
        "True True",
        "[1, 2, 0] [True, True, False] [0.8999999761581421, 0.8999999761581421, 0.8999999761581421]",
        "gradient '0' must be on cpu:1, as the parameter. Got one on cpu:2: pass jax.device_put(gradient, "
        "parameter.sharding).",
        "parameter 'W' must be on cpu:0, cpu:1, cpu:2, cpu:3, as before. Got one on cpu:3: take it there, or call "
        "reset().",
        "1 4",
    ]  # fmt: skip


def test_ctrl_c_comes_between_steps():
    def run(opt, w, timer):
        timer.start()
        for _ in range(10**9):
            opt.step(w, w)

    w = in_jax({str(n): np.ones(n, np.float32) for n in range(1, 11)})
    for wait in np.linspace(0.02, 0.03, 12):
        opt = fl.Adam()
        opt.step(w, w)
        timer = threading.Timer(wait, _thread.interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            run(opt, w, timer)
        timer.join()
        opt.step(w, w)  # which a torn one refuses
