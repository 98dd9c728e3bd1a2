"""What is fallline's own in Keras: chains, partitions, rules, schedules, files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from of_keras import (
    CLOSE,
    GIVEN,
    ON_TORCH,
    OURS,
    far,
    fit,
    needed,
    net,
    ours,
    parameters,
    same,
    some,
    stepped,
    variables,
)  # fmt: skip
from support import drawn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras


SUMS = {"a chain", "numbers", "a partition"}  # whose order JAX chooses


@pytest.mark.parametrize("name", some(OURS, "a chain", "a dialect", "whole leaves", "accumulation", "a partition",
                                      "another schedule", "rates by coordinate"))
def test_it_steps_as_it_does_on_arrays(name):
    opt = OURS[name]()
    rated = "lr" in opt.hyper and isinstance(opt.lr, float)
    arrays, gradients = parameters()
    expected = {f"w{k}": a.copy() for k, a in enumerate(arrays)}
    found = stepped(ours(opt), arrays, gradients)
    if rated:
        opt.lr = float(np.float32(opt.lr))  # as Keras keeps it
    for own in gradients:
        opt.step(expected, {f"w{k}": g for k, g in enumerate(own)})
    assert far(found, expected.values()) <= (CLOSE if name in SUMS else 0)
    assert far(found, arrays) > 1e-7


SAVED = {**OURS, "operations of torch": lambda: fl.Adam(0.05, engine="eager")}  # as on other devices
del SAVED["rates by coordinate"]  # of variables by other names


@pytest.mark.parametrize("name", some(SAVED, "accumulation", "a partition", "a schedule"))
def test_a_saved_model_goes_on_with_the_same_bits(name, tmp_path):
    model = fit(net(), ours(SAVED[name](), use_ema=ON_TORCH and name == "a chain"), epochs=1)
    model.save(path := tmp_path / "model.keras")
    # with an average, Keras's own optimizers cannot train twice on JAX: its arrays are then those of the model
    again = needed().saving.load_model(path, custom_objects=GIVEN)
    assert same(model, again)
    for own in (model, again):
        fit(own, epochs=1)
    assert same(model, again)


def test_a_schedule_of_ours_shows_its_value_for_the_coming_step():
    keras = needed()
    opt, cosine = ours(fl.Adam(fl.schedules.cosine(0.05, steps=20))), fl.schedules.cosine(0.05, steps=20)
    arrays, gradients = parameters()
    stepped(opt, arrays, gradients)
    assert float(keras.ops.convert_to_numpy(opt.learning_rate)) == pytest.approx(cosine(5), rel=1e-6)
    with pytest.raises(TypeError, match="learning rate is not settable"):
        opt.learning_rate = 0.1
    other = ours(fl.Adam(0.1))
    other.learning_rate = cosine
    assert float(keras.ops.convert_to_numpy(other.learning_rate)) == pytest.approx(0.05)


def test_a_variable_without_a_gradient_is_left_alone():
    keras = needed()
    arrays, gradients = parameters()
    opt, found = ours(fl.chain(fl.clip_norm(0.5), fl.Adam(0.1))), variables(arrays)
    expected, alone = {"w1": arrays[1].copy()}, fl.chain(fl.clip_norm(0.5), fl.Adam(float(np.float32(0.1))))
    for own in gradients:
        with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
            opt.apply([None, keras.ops.convert_to_tensor(own[1])], found)
        alone.step(expected, {"w1": own[1]})
    assert far([found[0].numpy()], [arrays[0]]) == 0
    assert far([found[1].numpy()], expected.values()) <= CLOSE
    untouched = [v for v in opt.variables if v.path.endswith("w0_m")]
    assert [float(np.abs(v.numpy()).max()) for v in untouched] == [0.0]
    opt.update_step(keras.ops.convert_to_tensor(gradients[0][0]), found[0], opt.learning_rate)
    assert far([found[0].numpy()], [arrays[0]]) > 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", *["float64"] * ON_TORCH])
def test_state_of_low_precision_is_float32(dtype):
    keras = needed()
    w = keras.Variable([1.0, 2.0], dtype=dtype)
    opt = ours(fl.Adam(0.1))
    opt.apply([keras.ops.ones_like(w.value)], [w])
    kept = {keras.backend.standardize_dtype(v.dtype) for v in opt.variables if v.path.endswith(("_m", "_v"))}
    assert kept == {"float64" if dtype == "float64" else "float32"}
    assert far([keras.ops.convert_to_numpy(keras.ops.cast(w.value, "float32"))], [[0.9, 1.9]]) < 0.01


def test_what_is_not_finite():
    keras = needed()
    for nonfinite in ("raise", "skip", "propagate"):
        opt, found = ours(fl.Adam(0.1, nonfinite=nonfinite)), variables([np.ones(2, "float32")])
        bad = [keras.ops.convert_to_tensor(np.array([np.nan, 1.0], "float32"))]
        if nonfinite == "raise" and ON_TORCH:
            with pytest.raises(fl.NonFiniteGradient, match="w0 has 1 NaN"):
                opt.apply(bad, found)
        else:
            opt.apply(bad, found)
        moved = nonfinite == "propagate" or (nonfinite == "raise" and not ON_TORCH)
        assert np.isnan(found[0].numpy()[0]) == moved


def test_the_rate_at_the_first_step_says_where_state_starts():
    opt = ours(fl.Rprop(0.5))
    opt.learning_rate = 0.01
    arrays, gradients = parameters()
    assert far(stepped(opt, arrays, gradients[:1]), arrays) == pytest.approx(0.01, rel=1e-4)


def test_bounds_hold_on_torch_and_are_refused_on_jax():
    boxed = fl.chain(fl.SGD(10.0), fl.bounds(-0.5, 0.5))
    if ON_TORCH:
        arrays, gradients = parameters()
        assert max(float(np.abs(w).max()) for w in stepped(ours(boxed), arrays, gradients)) == 0.5
    else:
        with pytest.raises(TypeError, match=r"within bounds, .* torch back end only: give the layers a constraint"):
            ours(boxed)


if ON_TORCH:

    @drawn(40)
    @given(st.sampled_from(sorted(OURS)), st.lists(st.sampled_from(["both", "w0", "w1"]), min_size=1, max_size=8),
           st.integers(0, 8))
    @pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning", "ignore:All gradients given:UserWarning")
    def test_whatever_has_gradients_and_wherever_it_is_saved_it_steps_as_on_arrays(name, given_of, saved_at):
        keras, opt, (arrays, gradients) = needed(), OURS[name](), parameters()
        mine, found = ours(opt), variables(arrays)
        if "lr" in opt.hyper and isinstance(opt.lr, float):
            opt.lr = float(np.float32(opt.lr))
        expected = {f"w{k}": a.copy() for k, a in enumerate(arrays)}
        mine.build(found)
        for t, of in enumerate(given_of):
            if t == saved_at:
                before, mine = mine, keras.optimizers.deserialize(keras.optimizers.serialize(mine), GIVEN)
                mine.build(found)
                for v, w in zip(mine.variables, before.variables, strict=True):
                    v.assign(w.value)
            own = [g if of in ("both", f"w{k}") else None for k, g in enumerate(gradients[t % len(gradients)])]
            mine.apply([None if g is None else keras.ops.convert_to_tensor(g) for g in own], found)
            opt.step(expected, {f"w{k}": g for k, g in enumerate(own)})
        assert far([v.numpy() for v in found], expected.values()) == 0
