"""`fallline.keras` beside Keras's own optimizers: what `fit` and `compile` do to these is done to ours too."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_keras import ON_TORCH, far, fit, needed, net, ours, parameters, some, stepped, trained, variables
from published_keras import AFTER_A_STEP, AFTER_EACH_STEP, GRADIENTS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras

dialect = fl.dialects.keras
OF_KERAS = {
    "clipnorm": {"clipnorm": 0.1}, "clipvalue": {"clipvalue": 0.05}, "global_clipnorm": {"global_clipnorm": 0.1},
    "weight_decay": {"weight_decay": 0.1}, "average": {"use_ema": True, "ema_momentum": 0.9},
    "average put in place": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "accumulation": {"gradient_accumulation_steps": 2}, "loss scale": {"loss_scale_factor": 8.0},
    "all": {"clipnorm": 0.1, "weight_decay": 0.1, "use_ema": True, "ema_overwrite_frequency": 2,
            "gradient_accumulation_steps": 2},
}  # fmt: skip


@pytest.mark.parametrize(("opt", "expected"), AFTER_A_STEP if ON_TORCH else AFTER_A_STEP[-4:],
                         ids=lambda value: repr(value)[:30])
def test_keras_publishes_these_values_of_a_step(opt, expected):
    x, = stepped(ours(opt), [np.array([1.0, 2.0, 3.0, 4.0], "float32")], [[np.array([1.0, 6.0, 7.0, 2.0], "float32")]])
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", some(AFTER_EACH_STEP, "Adam", "RMSprop"))
def test_keras_publishes_these_values_of_five_steps(name):
    make, golden = AFTER_EACH_STEP[name]
    opt, x = ours(make()), np.ones(10, "float32")
    keras = needed()
    w = keras.Variable(x)
    for g, expected in zip(GRADIENTS, golden):
        opt.apply([keras.ops.convert_to_tensor(g.astype("float32"))], [w])
        np.testing.assert_allclose(w.numpy()[[0, -1]], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("how", (cases := some(OF_KERAS, "all")).values(), ids=cases)
def test_what_keras_does_around_a_step_is_as_it_is_for_its_own(how):
    start, expected = net().get_weights(), trained(needed().optimizers.Adam(0.01, **how), epochs=3)
    found = trained(ours(dialect.Adam(0.01), **how), epochs=3)
    assert far(found, expected) < 1e-5 < 1e-2 < far(expected, start)


def test_variables_excluded_from_decay_do_not_decay():
    weights = []
    for opt in (needed().optimizers.SGD(0.1, weight_decay=0.5), ours(fl.SGD(0.1), weight_decay=0.5)):
        opt.exclude_from_weight_decay(var_names=["w0"])
        weights.append(stepped(opt, *parameters()))
    assert far(*weights) < 1e-6


def schedule():
    return needed().optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)


RATES = {
    "a number": lambda cls: cls(0.05),
    "a schedule": lambda cls: cls(schedule()),
    "a function": lambda cls: cls(lambda: 0.02),
    "a schedule for a number": lambda cls: _with(cls(0.05), schedule()),
    "another number": lambda cls: _with(cls(0.05), 0.01),
}


def _with(opt, rate):
    opt.learning_rate = rate
    return opt


@pytest.mark.parametrize("make", (cases := some(RATES, "a schedule", "another number")).values(), ids=cases)
def test_a_learning_rate_is_given_and_set_as_for_kerass_own(make):
    keras = needed()
    expected = trained(make(keras.optimizers.Adam), epochs=1)
    assert far(trained(make(lambda rate: ours(dialect.Adam(), rate)), epochs=1), expected) < 1e-5


def test_a_schedule_cannot_be_replaced_by_a_number_as_in_keras():
    for opt in (needed().optimizers.Adam(schedule()), ours(fl.Adam(), schedule())):
        with pytest.raises(TypeError, match="learning rate is not settable"):
            opt.learning_rate = 0.1


def test_of_half_precision_a_step_whose_loss_is_scaled_too_much_is_skipped():
    keras, weights, scales, steps = needed(), [], [], []
    for inner in (keras.optimizers.Adam(0.01), ours(dialect.Adam(0.01))):
        model = fit(net(dtype="mixed_float16"), keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**18))
        weights.append(model.get_weights())
        scales.append(float(model.optimizer.dynamic_scale.numpy()))
        steps.append(int(inner.iterations.numpy()))
    assert scales[0] == scales[1] < 2.0**18
    assert 0 < steps[0] == steps[1] < 8
    assert far(*weights) < 1e-4


def test_to_build_again_changes_nothing():
    keras, (arrays, gradients) = needed(), parameters()
    opt, found, others = ours(fl.Adam()), variables(arrays), variables(arrays)
    opt.apply(list(map(keras.ops.convert_to_tensor, gradients[0])), found)
    before = [v.numpy().copy() for v in opt.variables]
    opt.build(others)
    assert far([v.numpy() for v in opt.variables], before) == 0
    with pytest.raises(ValueError, match="Unknown variable"):
        opt.apply(list(map(keras.ops.convert_to_tensor, gradients[0])), others)


def test_stateless_apply_leaves_variables_as_they_are():
    keras = needed()
    arrays, gradients = parameters()
    expected, opt = stepped(ours(fl.Adam(0.1)), arrays, gradients[:2]), ours(fl.Adam(0.1))
    found = [keras.Variable(a) for a in arrays]
    opt.build(found)
    before = [v.numpy() for v in opt.variables]
    of_opt, of_model = [v.value for v in opt.variables], [v.value for v in found]
    for own in gradients[:2]:
        of_model, of_opt = opt.stateless_apply(of_opt, list(map(keras.ops.convert_to_tensor, own)), of_model)
    assert far([keras.ops.convert_to_numpy(v) for v in of_model], expected) == 0
    assert far([v.numpy() for v in found], arrays) == 0
    assert far([v.numpy() for v in opt.variables], before) == 0


if ON_TORCH:

    def test_torchs_compiler_leaves_a_step_alone():
        keras, torch, (arrays, gradients) = needed(), need("torch"), parameters()
        opt, found = ours(fl.Adam(0.1)), variables(arrays)
        opt.build(found)
        apply = torch.compile(lambda grads: opt.apply(grads), backend="eager")
        for own in gradients[:2]:
            apply(list(map(keras.ops.convert_to_tensor, own)))
        assert far([v.numpy() for v in found], stepped(ours(fl.Adam(0.1)), arrays, gradients[:2])) == 0
