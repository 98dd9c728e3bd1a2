"""Muon and Adafactor: their papers' steps, those of torch and optax, and how far the promises of others hold."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from needed import need
from peers import walk_torch
from reference_formulas import TRANSCRIPTIONS
from reference_settings import SETTINGS
from support import (
    FULL,
    HALVES,
    WHOLE_LEAF,
    assert_refused,
    build,
    every_engine,
    frozen,
    memory_of,
    run_alone,
    same_bits,
)

SHAPES = {"tall": (7, 5), "wide": (3, 8), "row": (1, 6), "column": (6, 1), "vector": (4,), "number": ()}
MATRICES = [key for key, shape in SHAPES.items() if len(shape) == 2]
STEPS = 60
every_whole = pytest.mark.parametrize("name", WHOLE_LEAF)


def walked(seed=0, keys=SHAPES, dtype=np.float64):
    """A start, and gradients along the way, some rows and columns of which are 0."""
    rng = np.random.default_rng(seed)
    trees = [{key: np.asarray(rng.standard_normal(SHAPES[key]), dtype) for key in keys} for _ in range(STEPS + 1)]
    for g in trees[1::3]:
        if "tall" in g:
            g["tall"][2] = 0
            g["wide"][:, 4] = 0
    return trees[0], trees[1:]


@pytest.mark.needs("a transcription")
@every_whole
@every_engine
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_it_follows_the_algorithm_of_its_paper_at_a_rate_that_changes(name, engine, setting):
    hyper = SETTINGS[setting][name]
    w, gradients = walked()
    expected = {key: x.copy() for key, x in w.items()}
    opt = build(name, engine, **{**hyper, "lr": lambda done: hyper.get("lr", 0.01) / (1 + done / 20)})
    peers = {key: TRANSCRIPTIONS[name](x.shape, 2.0**-1022, **hyper) for key, x in w.items()}
    for done, g in enumerate(gradients):
        opt.step(w, g)
        for key, peer in peers.items():
            peer.lr = hyper.get("lr", 0.01) / (1 + done / 20)
            if name == "Muon":
                peer.adamw.lr = peer.lr
            expected[key] = expected[key] + peer.step(g[key], expected[key])
            np.testing.assert_allclose(w[key], expected[key], rtol=0, atol=1e-10, err_msg=f"{key}, step {done + 1}")


CASES = {
    "Muon's matrices are torch's": (
        lambda: fl.Muon(0.01),
        "torch",
        lambda optim, w: optim.Muon(w, lr=0.01, adjust_lr_fn="match_rms_adamw", eps=1e-300),
        MATRICES,
    ),
    "Muon's other leaves are torch's AdamW": (
        lambda: fl.Muon(0.01, adam_eps=1e-30),
        "torch",
        lambda optim, w: optim.AdamW(w, lr=0.01, weight_decay=0.1, eps=0),
        ["vector", "number"],
    ),
    "Muon's matrices are optax' once its corrections have faded": (
        lambda: fl.Muon(0.01, weight_decay=0.1),
        "optax",
        lambda optax: optax.contrib.muon(0.01, weight_decay=0.1, consistent_rms=0.2, eps=0.0),
        ["tall", "wide"],
    ),
    "Adafactor is torch's without eps1": (
        lambda: fl.chain(fl.Adafactor(0.3, eps1=0.0, eps2=1.0, threshold=1.1, decay_rate=0.6), fl.weight_decay(0.1)),
        "torch",
        lambda optim, w: optim.Adafactor(w, lr=0.3, eps=(1e-150, 1.0), d=1.1, beta2_decay=-0.6, weight_decay=0.1),
        list(SHAPES),
    ),
    "Adafactor is optax' with the paper's schedule": (
        lambda: fl.Adafactor(0.3, eps1=1e-3),
        "optax",
        lambda optax: scheduled_adafactor(optax),
        ["wide", "vector"],
    ),
}  # fmt: skip


def scheduled_adafactor(optax):
    """optax' Adafactor, whose parts are these, with small matrices factored and no float32 in its decay."""
    jnp = need("jax").numpy
    return optax.chain(
        optax.scale_by_factored_rms(True, 0.8, 0, 0, 1e-3, decay_in_float64),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(lambda done: jnp.minimum(0.3, 1 / jnp.sqrt(done + 1.0))),
        optax.scale_by_param_block_rms(),
    )


def decay_in_float64(done, power):
    return 1 - (done + 1.0).astype(float) ** -power


def start_late(state):
    """optax' Muon after 3,000 steps without a gradient, when its corrections for the start of momentum have faded."""
    part = state.inner_states["muon"]
    first, *rest = part.inner_state
    late = part._replace(inner_state=(first._replace(count=first.count + 3000), *rest))
    return state._replace(inner_states={**state.inner_states, "muon": late})


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_the_definitions_coincide(case, monkeypatch):
    ours, peer, theirs, keys = CASES[case]
    if peer == "torch":  # which computes Muon's products in bfloat16
        monkeypatch.setattr(need("torch").Tensor, "bfloat16", lambda tensor: tensor.clone())
    start, gradients = walked(keys=SHAPES)
    for key in keys:
        mine, opt, g = start[key].copy(), ours(), [g[key] for g in gradients]
        walk = walk_torch(theirs, mine, g) if peer == "torch" else walk_along_optax(theirs, mine, g, "Muon" in case)
        for step, found in enumerate(walk):
            mine = opt.step(mine, g[step])
            np.testing.assert_allclose(mine, found, rtol=0, atol=1e-10, err_msg=f"{key}, step {step + 1}")
        assert step == STEPS - 1
        assert np.max(np.abs(mine - start[key])) > 1e-3


def walk_along_optax(make, w, gradients, late):
    jax, optax = need("jax"), need("optax")
    with jax.enable_x64(True):
        transform, parameter, found = make(optax), jax.numpy.asarray(w), []
        advance = jax.jit(transform.update)
        state = start_late(transform.init(parameter)) if late else transform.init(parameter)
        for g in gradients:
            increment, state = advance(jax.numpy.asarray(g), state, parameter)
            parameter = parameter + increment
            found.append(np.asarray(parameter))
    return found


# ------------------------------------------------------------------------------------------- edges


@every_whole
@every_engine
@pytest.mark.parametrize("dtype", FULL + HALVES, ids=str)
def test_zero_gradients_of_any_shape_move_nothing_and_leave_finite_state(name, engine, dtype):
    for shape in [(2, 3), (0, 3), (3, 0), (1, 4), (4, 1), (2, 2, 2), (0, 2, 3), (3,), (0,), ()]:
        check_zero_gradients(name, engine, shape, dtype)


def check_zero_gradients(name, engine, shape, dtype):
    opt = build(name, engine, lr=0.5, **({"weight_decay": 0.0} if name == "Muon" else {}))  # which 16 bits can tell
    w = np.full(shape, 2.5, dtype)
    for _ in range(3):
        opt.step(w, np.zeros(shape, dtype))
    assert same_bits(w, np.full(shape, 2.5, dtype))
    assert all(np.isfinite(opt.state[slot]).all() for slot in opt.state)
    opt.step(w, np.ones(shape, dtype))
    assert np.isfinite(w).all()
    assert not w.size or np.all(w < 2.5)


@every_whole
@pytest.mark.parametrize("size", [1e-35, 1e-19, 1e20, 3e38], ids=str)
def test_matrices_of_any_size_make_finite_steps_and_with_muon_those_of_ones_of_size_1(name, size):
    """In float32, where squares of the first vanish and those of the last overflow."""
    none = {"weight_decay": 0.0} if name == "Muon" else {"eps1": 0.0}
    g = np.random.default_rng(0).uniform(0.25, 1, (5, 4, 3)).astype(np.float32)
    small, plain, w, v = build(name, **none), build(name, **none), *np.ones((2, 4, 3), np.float32)
    for each in g:
        small.step(w, each * np.float32(size))
        plain.step(v, each)
    assert np.isfinite(w).all()
    assert np.all(w != 1)
    if name == "Muon":
        np.testing.assert_allclose(1 - w, 1 - v, atol=1e-6)


@every_whole
def test_a_row_or_column_that_never_had_a_gradient_keeps_its_bits(name):
    opt = build(name, **({"weight_decay": 0.0} if name == "Muon" else {}))
    rng = np.random.default_rng(1)
    w = rng.standard_normal((6, 5))
    kept = w.copy()
    for _ in range(10):
        g = rng.standard_normal((6, 5))
        g[2], g[:, 3] = 0, 0
        opt.step(w, g)
    moved = w != kept
    assert not moved[2].any()
    assert not moved[:, 3].any()
    assert moved.sum() == 5 * 4


@every_whole
def test_what_is_not_finite_is_refused_or_spreads_through_its_leaf_alone(name):
    opt, w = build(name), {"a": np.ones((3, 2)), "b": np.ones(2)}
    bad = {"a": np.array([[np.nan, 1], [np.inf, 1], [1, 1]]), "b": np.ones(2)}
    assert_refused(lambda: opt.step(w, bad), "a has 1 NaN", opt, w)
    opt = build(name, nonfinite="propagate")
    opt.step(w, bad)
    assert np.isnan(w["a"]).all()
    assert np.isfinite(w["b"]).all()


def test_muon_steps_all_directions_alike_and_as_far_as_adamw():
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.standard_normal((n, 40)))[0] for n in (60, 40))
    spread = np.geomspace(0.025, 1, 40)
    spread /= np.linalg.norm(spread)
    assert spread.min() == pytest.approx(0.01, rel=0.1)
    g = left * spread @ right.T
    d = fl.Muon(1.0, weight_decay=0.0).update(g, params=np.zeros((60, 40)))
    found = np.linalg.svd(d / (0.2 * 60**0.5), compute_uv=False)
    assert found.min() > 0.68
    assert found.max() < 1.14
    d = fl.Muon(1.0, weight_decay=0.0).update(rng.standard_normal((300, 200)), params=np.zeros((300, 200)))
    assert np.sqrt(np.mean(d**2)) == pytest.approx(0.2 * (200 / 300) ** 0.5 * 300**0.5 / 200**0.5, rel=0.25)


def test_state_is_as_small_as_the_docstrings_say():
    muon, adafactor, w = fl.Muon(), fl.Adafactor(), {"W": np.ones((300, 200)), "K": np.ones((3, 4, 5)), "b": np.ones(7)}
    muon.step(w, w)
    adafactor.step(w, w)
    assert [muon.state[slot]["W"].size for slot in ("m", "v")] == [300 * 200, 0]
    assert [muon.state[slot]["K"].shape for slot in ("m", "v")] == [(3, 4, 5)] * 2
    assert [adafactor.state[slot]["W"].size for slot in ("v", "row", "col")] == [0, 300, 200]
    assert [adafactor.state[slot]["K"].shape for slot in ("v", "row", "col")] == [(0,), (3, 4), (3, 5)]
    assert [adafactor.state[slot]["b"].size for slot in ("v", "row", "col")] == [7, 0, 0]


def test_the_axes_before_the_last_two_count_matrices():
    rng = np.random.default_rng(3)
    g, together, apart = rng.standard_normal((20, 2, 4, 5)), fl.Adafactor(), fl.Adafactor(threshold=1e9)
    loose, w, v = fl.Adafactor(threshold=1e9), np.ones((2, 4, 5)), list(np.ones((2, 4, 5)))
    u = np.ones((2, 4, 5))
    for each in g:
        together.step(w, each)
        loose.step(u, each)
        apart.step(v, list(each))
        for slot in ("row", "col"):
            np.testing.assert_allclose(loose.state[slot], apart.state[slot], rtol=1e-13)
            np.testing.assert_allclose(loose.state[slot], together.state[slot], rtol=1e-13)


# -------------------------------------------------------------------- the same bits, as far as they are promised


@every_whole
@pytest.mark.parametrize("dtype", FULL + HALVES, ids=str)
def test_engines_threads_layouts_and_a_run_resumed_give_the_same_bits(name, dtype, tmp_path):
    start, gradients = walked(4, dtype=dtype)

    def run(opt, resume=False, change=np.array):
        w = {key: change(x) for key, x in start.items()}
        for done, g in enumerate(gradients[:8]):
            opt.step(w, {**g, "tall": None} if done == 2 else {key: change(x) for key, x in g.items()})
            if resume and done == 4:
                opt.save(tmp_path / "run", w)
                opt, w = fl.load(tmp_path / "run")
        return frozen({key: np.ascontiguousarray(x) for key, x in w.items()}), memory_of(opt)

    def mirrored(a):
        return np.array(a)[::-1, ::-1][::-1, ::-1] if a.ndim == 2 else np.array(a)

    expected = run(build(name, "reference"))
    assert run(build(name, "native")) == expected
    assert run(build(name, "native", threads=3)) == expected
    assert run(build(name), resume=True) == expected
    assert run(build(name), change=lambda a: np.array(a, order="F")) == expected
    assert run(build(name), change=mirrored) == expected


LARGE = """
import hashlib, numpy as np, fallline as fl
rng = np.random.default_rng(0)
w, opt = rng.standard_normal((512, 512)).astype("float32"), fl.{name}(0.01)
for _ in range(3):
    opt.step(w, rng.standard_normal((512, 512)).astype("float32"))
print(hashlib.sha256(w.tobytes()).hexdigest())
"""


@pytest.mark.slow
@every_whole
def test_on_one_machine_a_run_repeats_to_the_bit(name):
    assert len({run_alone(LARGE.format(name=name)) for _ in range(2)}) == 1
