"""Optimisers whose formulas reduce, start at the parameter or keep numbers: against peers, several leaves at a time.

Their transcriptions from the papers are in reference_formulas.py, for the tests of every optimiser.
"""

import numpy as np
import pytest

import fallline as fl
from needed import need
from reference_formulas import TRANSCRIPTIONS
from reference_ten import TINY
from support import every_engine, every_precision, everything_of, frozen, limits, normal, same_bits

STEPS = 80
SHAPES = {"matrix": (7, 5), "zeros": (3,), "number": (), "empty": (0, 4), "cube": (2, 3, 4)}
NONE = 1e-30  # eps in place of the 0 that others add
WARM = 20


def start(dtype=np.float64):
    rng = np.random.default_rng(0)
    drawn = {key: normal(rng, shape, dtype) for key, shape in SHAPES.items()}
    return {**drawn, "zeros": np.zeros_like(drawn["zeros"])}


def slope(k, w):
    """Noise upon a bowl, so that each step depends on all before it."""
    rng = np.random.default_rng(1000 + k)
    noise = {key: normal(rng, shape, np.asarray(w[key]).dtype) for key, shape in SHAPES.items()}
    return {key: (0.3 * g + 0.5 * np.asarray(w[key])).astype(g.dtype) for key, g in noise.items()}


def warm(lr):
    return lambda t: lr * min(1.0, (t + 1) / WARM)


def with_decay(optax, name, lr, **hyper):
    return getattr(optax.contrib, name)(lr, eps=0.0, weight_decay=0.1, **hyper)


PEERS = {
    "Adan, where optax' 1 - beta2 is beta2": (
        lambda: fl.Adan(0.01, beta2=0.5, eps=NONE),
        lambda optax: optax.adan(0.01, b2=0.5, eps=0.0, eps_root=0.0)),
    "LARS": (lambda: fl.LARS(0.5), lambda optax: optax.lars(0.5, weight_decay=0.0)),
    "LAMB": (lambda: fl.LAMB(0.01, eps=NONE, weight_decay=0.1),
             lambda optax: optax.lamb(0.01, eps=0.0, weight_decay=0.1)),
    "ScheduleFreeSGD": (lambda: fl.ScheduleFreeSGD(0.1, beta=0.8),
                        lambda optax: optax.contrib.schedule_free_sgd(0.1, b1=0.8)),
    "ScheduleFreeAdamW": (lambda: fl.ScheduleFreeAdamW(0.01, eps=NONE, weight_decay=0.1),
                          lambda optax: with_decay(optax, "schedule_free_adamw", 0.01, warmup_steps=None)),
}  # fmt: skip


def assert_close(found, wanted, origin):
    """To 1e-10 of the way each leaf went."""
    for key, leaf in found.items():
        if leaf.size:
            far = max(float(np.abs(wanted[key] - origin[key]).max()), 1e-300)
            assert np.abs(leaf - wanted[key]).max() <= 1e-10 * far, key


@pytest.mark.slow
@pytest.mark.parametrize("case", PEERS)
def test_each_step_is_that_of_optax_and_so_is_the_point_to_report(case):
    jax, optax = need("jax"), need("optax")
    ours, peer = PEERS[case]
    opt, w, origin = ours(), start(), start()
    with jax.enable_x64(True):
        parameters = {key: jax.numpy.asarray(leaf) for key, leaf in start().items()}
        transform = peer(optax)
        state = transform.init(parameters)
        for k in range(STEPS):
            increments, state = transform.update(
                {key: jax.numpy.asarray(g) for key, g in slope(k, parameters).items()}, state, parameters)  # fmt: skip
            parameters = optax.apply_updates(parameters, increments)
            opt.step(w, slope(k, w))
            assert_close(w, {key: np.asarray(leaf) for key, leaf in parameters.items()}, origin)
            if "Free" in case:
                mean = optax.contrib.schedule_free_eval_params(state, parameters)
                assert_close(opt.rest(w), {key: np.asarray(leaf) for key, leaf in mean.items()}, origin)


def test_schedule_free_keeps_the_papers_three_sequences_through_a_warm_up():
    """As the paper's equations have them, with the x that we never store; weighed by lr²."""
    lr, beta = warm(0.1), 0.9
    opt, w = fl.ScheduleFreeSGD(lr, beta=beta), start()
    x, z, weight = start(), start(), 0.0
    for k in range(STEPS):
        y = {key: (1 - beta) * z[key] + beta * x[key] for key in x}
        assert_close(w, y, {key: leaf + 1 for key, leaf in y.items()})
        g = slope(k, y)
        opt.step(w, slope(k, w))
        z = {key: z[key] - lr(k) * g[key] for key in z}
        weight += lr(k) ** 2
        c = lr(k) ** 2 / weight
        x = {key: (1 - c) * x[key] + c * z[key] for key in x}
        assert_close(opt.rest(w), x, {key: leaf + 1 for key, leaf in x.items()})
        assert_close(opt.state["z"], z, {key: leaf + 1 for key, leaf in z.items()})


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_a_warm_up_that_begins_at_a_rate_of_zero_weighs_nothing_and_divides_by_nothing(name):
    opt, w = fl.OPTIMIZERS[name](lambda t: 0.1 * min(t, 3)), np.ones(3)
    opt.step(w, np.ones(3))
    assert w.tolist() == opt.rest(w).tolist() == [1.0] * 3
    opt.step(w, np.ones(3))
    np.testing.assert_allclose(opt.rest(w), opt.state["z"])  # the mean of one point
    assert float(opt.state["weight"]) == pytest.approx(0.01)


def test_the_weights_of_schedule_free_are_each_leafs_own():
    opt = fl.ScheduleFreeSGD({"a": 0.5, "b": 0.25})
    w = {"a": np.ones(2), "b": np.ones(2)}
    for k in range(4):
        opt.step(w, {"a": np.ones(2), "b": None if k % 2 else np.ones(2)})
    assert {key: float(n) for key, n in opt.state["weight"].items()} == {"a": 4 * 0.25, "b": 2 * 0.0625}
    alone, v = fl.ScheduleFreeSGD(0.25), np.ones(2)
    for _ in range(2):
        alone.step(v, np.ones(2))
    assert same_bits(w["b"], v)


@pytest.mark.parametrize("hyper", [{"eps": 0.0}, {"lr": 0.5, "d0": 1e-3, "d_coef": 2.0, "weight_decay": 0.1}])
def test_prodigy_of_a_tree_is_prodigy_of_all_its_coordinates_in_a_row(hyper):
    opt, w = fl.Prodigy(**hyper), start()

    def row(tree):
        return np.concatenate([np.ravel(leaf) for leaf in tree.values()])

    x = row(w)
    expected = TRANSCRIPTIONS["Prodigy"](x.shape, TINY[np.dtype("float64")], **hyper)
    for k in range(STEPS):
        g = slope(k, w)
        x = x + expected.step(row(g), x)
        opt.step(w, g)
        np.testing.assert_allclose(row(w), x, rtol=1e-10, atol=1e-10)
        assert float(opt.state["d"]) == pytest.approx(expected.d, rel=1e-10)
    assert expected.d > 1e-2


def test_prodigy_finds_the_distance_by_itself_from_any_start_and_scale():
    for far in (1e-2, 1.0, 1e4):
        opt, w = fl.Prodigy(d0=1e-6 * far), np.full(20, far)
        for _ in range(400):
            opt.step(w, 7.0 * np.sign(w) + w / far)
        assert 0.1 * far < float(opt.state["d"]) < 10 * far
        assert np.abs(w).max() < 0.2 * far


def test_a_frozen_leaf_takes_no_part_in_prodigys_estimate():
    opt, alone = fl.Prodigy({"a": 1.0, "b": 0.0}, d0=1e-2), fl.Prodigy(d0=1e-2)
    w, v = {"a": np.ones(4), "b": np.ones(4)}, np.ones(4)
    for _ in range(20):
        opt.step(w, {"a": w["a"], "b": np.full(4, 3.0)})
        alone.step(v, v.copy())
    assert same_bits(w["a"], v)
    assert w["b"].tolist() == [1.0] * 4


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
@every_engine
@every_precision
def test_a_leaf_or_a_gradient_of_zeros_has_the_ratio_one_and_no_leaf_sees_another(name, engine, dtype):
    plain = {"LARS": fl.Momentum(1.0), "LAMB": fl.AdamW(1e-3, weight_decay=0.0)}[name]
    opt, alone = fl.OPTIMIZERS[name](engine=engine), fl.OPTIMIZERS[name](engine=engine)
    w = {"zeros": np.zeros(3, dtype), "still": np.ones(3, dtype), "own": np.arange(1, 4).astype(dtype)}
    v, u = w["own"].copy(), np.zeros(3, dtype)
    g = np.array([0.5, -0.25, 0.0], dtype)
    opt.step(w, {"zeros": g, "still": np.zeros(3, dtype), "own": g})
    alone.step(v, g)
    plain.step(u, g)
    np.testing.assert_allclose(w["zeros"].astype(complex), u.astype(complex), rtol=4 * float(limits(dtype).eps))
    assert same_bits(w["still"], np.ones(3, dtype))
    assert same_bits(w["own"], v)


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
@pytest.mark.parametrize("size", [1e-44, 1e-20, 1e18, 1e38])
def test_a_step_is_in_proportion_to_the_leaf_for_gradients_of_any_size_and_always_finite(name, size):
    with np.errstate(under="ignore"):
        g = np.full(4, size, np.float32)
    hyper = {"momentum": 0.0, "lr": 100.0} if name == "LARS" else {"lr": 0.1, "eps": 0.0}
    opt, w = fl.OPTIMIZERS[name](**hyper), np.full(4, 2.0, np.float32)
    opt.step(w, g)
    assert np.all(np.isfinite(w))
    if 1e-38 < size < 1e19:
        assert w[0] == pytest.approx(1.8, rel=1e-6)


@pytest.mark.parametrize("name", ["Adan", "LARS", "LAMB", "ScheduleFreeSGD", "ScheduleFreeAdamW", "Prodigy"])
@every_precision
def test_engines_agree_on_trees_and_a_run_goes_on_from_a_file_to_the_same_bits(name, dtype, tmp_path):
    native, reference = (fl.OPTIMIZERS[name](engine=engine) for engine in ("native", "reference"))
    w, v = start(dtype), start(dtype)

    def walk(steps):
        for k in steps:
            g = slope(k, w) | ({"matrix": None} if k % 4 == 1 else {}) | ({"cube": None} if k < 2 else {})
            native.step(w, g)
            reference.step(v, g)
            assert same_bits(w, v)
            assert everything_of(native)["state"] == everything_of(reference)["state"]

    walk(range(6))
    native.save(tmp_path / "file", params=w)
    loaded, u = fl.load(tmp_path / "file")
    assert everything_of(loaded) == everything_of(native)
    walk(range(6, 12))
    for k in range(6, 12):
        loaded.step(u, slope(k, u) | ({"matrix": None} if k % 4 == 1 else {}))
    assert frozen(u) == frozen(w)
    other = fl.OPTIMIZERS[name]()
    other.load_state_dict(native.state_dict())
    assert everything_of(other)["state"] == everything_of(native)["state"]
