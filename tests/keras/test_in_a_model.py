"""What is done to a model that is compiled with an optimizer of ours, and with Keras's own: to callbacks, copies and
files it is one like the others."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from of_keras import data, far, fit, needed, net, ours, same, trained

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras
dialect = fl.dialects.keras

CALLBACKS = {
    "LearningRateScheduler": lambda callbacks: callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5),
    "ReduceLROnPlateau": lambda callbacks: callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0),
}


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
def test_callbacks_change_the_learning_rate(make):
    keras, rates, weights = needed(), [], []
    for opt in (keras.optimizers.Adam(0.05), ours(dialect.Adam(0.05))):
        weights.append(trained(opt, epochs=3, callbacks=[make(keras.callbacks)]))
        rates.append(float(keras.ops.convert_to_numpy(opt.learning_rate)))
    assert rates[0] == rates[1] < 0.05
    assert far(*weights) < 1e-5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras, weights, scales = needed(), [], []
    for opt in (keras.optimizers.Adam(0.01), ours(dialect.Adam(0.01))):
        model = fit(net(dtype=policy), opt)
        weights.append(model.get_weights())
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        scales.append(float(model.optimizer.dynamic_scale.numpy()) if scaled else None)
    assert scales[0] == scales[1]
    assert far(*weights) < 1e-4


def test_a_model_says_what_it_has(capsys):
    model = fit(net(), ours(fl.Adam()))
    model.summary(print_fn=print)
    own = sum(int(np.prod(v.shape)) for v in model.optimizer.variables)
    assert f"Optimizer params: {own}" in capsys.readouterr().out
    assert {v.path.split("/")[-1] for v in model.optimizer.variables} >= {
        "iteration", "learning_rate", "net_hidden_kernel_m", "net_out_bias_v"}


def test_a_clone_is_compiled_with_another_like_it():
    keras = needed()
    model = net()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    fit(model, ours(fl.Adam(0.01)))
    fit(clone, keras.optimizers.get(keras.optimizers.serialize(model.optimizer)))
    assert far(model.get_weights(), clone.get_weights()) == 0


def test_weights_of_a_run_are_loaded_into_another(tmp_path):
    model = fit(net(), ours(fl.Adam(0.01)))
    model.save_weights(path := tmp_path / "run.weights.h5")
    other = fit(net(1), ours(fl.Adam(0.01)), epochs=1)
    other.load_weights(path)
    fit(model)
    fit(other)
    assert same(model, other)


def test_data_of_a_fit_in_which_the_rate_is_0_moves_nothing():
    model = net()
    before = model.get_weights()
    fit(model, ours(fl.Adam(0.1), 0.0))
    assert far(model.get_weights(), before) == 0
    assert np.isfinite(model.evaluate(*data(), verbose=0))


def test_names_that_keras_gives_decide_nothing(tmp_path):
    keras, found = needed(), []
    for names in (("dense_8", "dense_9"), ("dense_9", "dense_10")):  # which another order would sort
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(3, activation="tanh", name=name) for name in names]
        model = keras.Sequential([keras.Input((3,)), *layers])
        found.append(fit(model, ours(fl.chain(fl.clip_norm(0.1), fl.Adam(0.01)))))
    assert same(*found)
    fit(found[0])
    found[0].save_weights(path := tmp_path / "run.weights.h5")
    found[1].load_weights(path)
    assert same(*found)
