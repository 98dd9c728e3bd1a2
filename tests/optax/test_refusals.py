"""What cannot be right is refused in one sentence that names the remedy, inside jit too."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_optax import leaves, on_device

jax, optax, transform = need("jax"), need("optax"), need("fallline.optax").transform
jnp = jax.numpy

SHAPES = {"W": (3, 2), "b": (2,)}
PARAMS, GRADS = leaves(0, shapes=SHAPES), leaves(1, shapes=SHAPES)


def says(error, *parts):
    """A context in which an error is raised, in one line with these words. (JAX adds notes to it.)"""
    return pytest.raises(error, match=r"\A.*" + ".*".join(parts) + r".*\.(\n-+\nFor simplicity, JAX .*)?\Z")


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: transform(fl.Adam), TypeError, ["made of a fallline optimizer", "Call it"]),
    (lambda: transform(optax.adam(1e-3)), TypeError, ["made of a fallline optimizer"]),
    (lambda: transform(transform(fl.Adam())), TypeError, ["what fallline.optax.transform makes of an optimizer"]),
    (lambda: transform(fl.Adam(), lrate=0.1), TypeError, ["Adam has no hyper-parameter 'lrate'", "lr"]),
    (lambda: transform(fl.Adam(), lr=-1.0), ValueError, ["lr of Adam must be ≥ 0. Got -1.0"]),
    (lambda: transform(fl.Adam(), beta1=2.0), ValueError, ["beta1 of Adam must be"]),
    (lambda: transform(fl.chain(fl.Adam(), fl.bounds(0.0, 1.0))), TypeError, ["bounds", "clip"]),
    (lambda: transform(fl.Adam(lr=fl.schedules.plateau(0.1))), TypeError, ["hears values", "reduce_on_plateau"]),
    (lambda: jax.jit(lambda n: transform(fl.accumulate(2, fl.Adam()), n=n).init(PARAMS))(3), TypeError,
     ["n of accumulate must be known", "traces"]),
])
def test_what_is_no_transformation(make, error, words):
    with says(error, *words):
        make()


def given(opt, name, value):
    """An update with a hyper-parameter that is traced."""
    state = transform(opt).init(PARAMS)
    return jax.jit(lambda value: transform(opt, **{name: value}).update(GRADS, state, PARAMS))(value)


@pytest.mark.parametrize(("opt", "name", "value", "error", "words"), [
    (fl.Adam(), "lr", {"W": 0.1}, ValueError, ["lr of Adam must have the structure", "missing 'b'"]),
    (fl.Adam(), "lr", np.ones(5), ValueError, ["lr of Adam must have the structure", r"Got an array of shape \(5,\)"]),
    (fl.Adam(), "lr", {"W": np.ones(3), "b": 0.1}, ValueError, [r"lr of Adam, .* must have the shape \(3, 2\) of W"]),
    (fl.Adam(), "lr", 1j, TypeError, ["lr of Adam must be a real number. Got one of complex64"]),
    (fl.Adam(), "lr", True, TypeError, ["lr of Adam must be a real number. Got one of bool"]),
    (fl.Adam(), "beta1", {"W": np.ones((3, 2)), "b": 0.1}, TypeError, ["beta1 of Adam stands in a power"]),
    (fl.Prodigy(), "beta2", {"W": 0.1, "b": 0.2}, TypeError, ["beta2 of Prodigy", "cannot differ by leaf"]),
], ids=str)
def test_traced_hyper_parameters_that_do_not_fit(opt, name, value, error, words):
    with says(error, *words):
        given(opt, name, value)


def test_what_is_known_of_a_tree_of_which_some_is_traced_is_checked():
    with says(ValueError, "lr of Adam must be ≥ 0. Got -1.0"):
        jax.jit(lambda lr: transform(fl.Adam(), lr={"W": lr, "b": -1.0}).init(PARAMS))(0.1)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("grads", "error", "words"), [
    ({"W": GRADS["W"]}, ValueError, ["grads", "parameters", "b"]),
    ({**GRADS, "b": np.ones(3, np.float32)}, ValueError, [r"gradient.*b.*must have the shape \(2,\). Got \(3,\)"]),
    ({**GRADS, "b": np.ones(2, np.int32)}, TypeError, ["gradient.*b.*must be an array of", "Got int32"]),
    ({**GRADS, "b": np.ones(2, np.complex64)}, TypeError, ["gradient.*b.*must be real"]),
    ({**GRADS, "b": None}, ValueError, ["gradient.*b.*is None", "mask"]),
], ids=["structure", "shape", "integers", "complex", "None"])
def test_gradients_that_do_not_fit(grads, error, words, compiled):
    tx = transform(fl.Adam(0.1))
    update = jax.jit(tx.update) if compiled else tx.update
    with says(error, *words):
        update(grads, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(("params", "words"), [
    ({**PARAMS, "b": np.ones(2, np.int32)}, ["parameter.*b.*must be an array of", "Got int32"]),
    ({**PARAMS, "b": "two"}, ["parameter.*b.*must be an array of", "'two'"]),
])
def test_parameters_that_cannot_be_trained(params, words):
    with says(TypeError, *words):
        transform(fl.Adam(0.1)).init(params)


def test_a_schedule_of_python_alone_is_refused_where_the_count_is_traced():
    params = on_device(PARAMS)
    for schedule in (lambda t: 0.1 if t < 10 else 0.01, lambda t: 0.1 * math.cos(t),
                     lambda t: 0.1 * np.where(t < 9, 1, 2), lambda t: [0.1, 0.01][t]):
        tx = transform(fl.Adam(lr=schedule))
        with says(TypeError, "The schedule of lr of Adam", "inside jit", "jax.numpy"):
            jax.jit(tx.update)(params, tx.init(params), params)
        tx.update(params, tx.init(params), params)  # where it is known, any function will do
    for schedule in (lambda t: jnp.ones(2) * t, lambda t: "a", lambda t: None):
        tx = transform(fl.Adam(lr=schedule))
        with says(TypeError, "The schedule of lr of Adam must return one number. Got"):
            jax.jit(tx.update)(params, tx.init(params), params)
    tx = transform(fl.Adam(lr=lambda t: 0.1 * jnp.where(t < 10, 1.0, 0.1)))
    jax.jit(tx.update)(params, tx.init(params), params)


def test_a_state_of_another_optimizer_or_tree_is_refused():
    tx, other = transform(fl.Adam(0.1)), transform(fl.Momentum(0.1))
    for wrong in (other.init(PARAMS), optax.adam(0.1).init(PARAMS), None, {"": tx.init(PARAMS)}):
        with says(ValueError, "state must be one of Adam, as init and update give it: .*. Got"):
            tx.update(GRADS, wrong, PARAMS)
    with says(ValueError, r"update\(grads, state, params\)"):
        tx.update(GRADS, PARAMS, tx.init(PARAMS))
    with says(ValueError, "Got", r"make it fallline.optax.State\(\*\*state\)"):
        tx.update(GRADS, tx.init(PARAMS)._asdict(), PARAMS)
    with says(ValueError, r"slots\['m'\] of the state", "same structure as the parameters: missing 'b'"):
        tx.update(GRADS, tx.init({"W": PARAMS["W"]}), PARAMS)
    with says(ValueError, r"state m 'b' must have the shape \(2,\). Got \(3,\): it is of other parameters"):
        tx.update(GRADS, tx.init({**PARAMS, "b": np.ones(3, np.float32)}), PARAMS)


def test_what_numpy_runs_has_no_derivative():
    tx = transform(fl.Muon(0.1))

    def length(grads):
        return jnp.sum(tx.update(grads, tx.init(PARAMS), PARAMS)[0]["W"])

    with says(TypeError, "Muon is a function of whole leaves", "has no derivative"):
        jax.jit(jax.grad(length))(GRADS)
