"""What is refused in Keras's models, in a sentence that says what to do; and how an optimizer is written and read."""

from __future__ import annotations

import copy
import importlib
import json

import numpy as np
import pytest

import fallline as fl
from of_keras import GIVEN, OURS, needed, ours, variables
from support import run_alone

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras


def test_a_config_is_json_and_makes_the_same_optimizer():
    keras = needed()
    for name, make in OURS.items():
        opt = ours(make(), name="mine", global_clipnorm=1.0)
        config = json.loads(json.dumps(keras.optimizers.serialize(opt)))
        again = keras.optimizers.deserialize(copy.deepcopy(config), custom_objects=GIVEN)
        assert json.loads(json.dumps(keras.optimizers.serialize(again))) == config, name
        assert (again.name, again.global_clipnorm) == ("mine", 1.0)
        assert repr(again._made) == repr(opt._made)


MISSING = {
    "a rule": r"needs the rule 'signed_momentum'.* custom_objects=\{'signed_momentum': signed_momentum\}\.",
    "a partition": r"label was '?by_kind'? .* custom_objects=\{'label': \.\.\.\}\.",
    "rates by path": r"lr of Adam was .*by_path.* custom_objects=\{'lr': \.\.\.\}\.",
    "a class": r"needs the rule 'signed_momentum'.* custom_objects=",
}


@pytest.mark.parametrize(("name", "said"), MISSING.items(), ids=MISSING)
def test_what_a_file_lacks_is_asked_for_as_keras_takes_it(name, said):
    keras = needed()
    config = keras.optimizers.serialize(ours(OURS[name]()))
    with pytest.raises(fl.CheckpointError, match=said):
        keras.optimizers.deserialize(config)


@pytest.mark.parametrize(("name", "why"), [
    ("no rate", r"AdaDelta has no lr.*keras"), ("rates by path", "lr of Adam differs by leaf"),
    ("a partition", r"several rates, matrices\.lr, others\.lr"),
])  # fmt: skip
def test_where_there_is_no_single_rate_none_is_shown_or_set(name, why):
    opt = ours(OURS[name]())
    assert np.isnan(float(opt.learning_rate.numpy()))
    with pytest.raises(TypeError, match=f"learning_rate cannot be set: .*{why}"):
        opt.learning_rate = 0.1
    with pytest.raises(TypeError, match=f"learning_rate cannot be given: .*{why}"):
        ours(OURS[name](), 0.1)
    with pytest.raises(TypeError, match=f"weight_decay, .* cannot be given: .*{why}"):
        ours(OURS[name](), weight_decay=0.1)


REFUSED = {
    "a name": (lambda: ours("adam"), TypeError, r"takes an optimizer of fallline.*Got 'adam'\. Did you mean Adam"),
    "a class": (lambda: ours(fl.Adam), TypeError, r"takes an optimizer of fallline.*Call it: Adam\(\)"),
    "Keras's own": (lambda: ours(needed().optimizers.Adam()), TypeError, r"fallline\.dialects\.keras\.Adam has"),
    "a slip": (lambda: ours(fl.Adam(), clip_norm=1.0), TypeError, "clip_norm"),
    "a rate out of range": (lambda: ours(fl.Adam(), -1), ValueError, r"lr of Adam must be ≥ 0\. Got -1"),
    "a rate set out of range": (lambda: setattr(ours(fl.Adam()), "learning_rate", -0.5), ValueError,
                                r"lr of Adam must be ≥ 0\. Got -0\.5"),
    "what is no optimizer's": (lambda: _read({}), fl.CheckpointError, "The optimizer of the model is not as fallline"),
    "two ways to clip": (lambda: ours(fl.Adam(), clipnorm=1.0, clipvalue=1.0), ValueError, "Only one of"),
    "a rate that hears": (lambda: ours(fl.Adam(), fl.schedules.plateau(0.1)), TypeError,
                          r"keras\.callbacks\.ReduceLROnPlateau"),
    "what hears": (lambda: ours(fl.Adam(fl.schedules.plateau(0.1))), TypeError, r"keras\.callbacks\.ReduceLROnPlateau"),
    "a dialect by name": (lambda: _named("Adam"), AttributeError,
                          r"write fallline\.keras\.Optimizer\(fallline\.dialects\.keras\.Adam\("),
    "one of ours by name": (lambda: _named("Prodigy"), AttributeError,
                            r"write fallline\.keras\.Optimizer\(fallline\.Prodigy\("),
    "any other name": (lambda: _named("Adan2"), AttributeError, "has no attribute 'Adan2'. Known: Optimizer"),
}


def _read(opt):
    keras = needed()
    config = keras.optimizers.serialize(ours(fl.Adam()))
    return keras.optimizers.deserialize({**config, "config": {**config["config"], "opt": opt}})


def _named(name):
    needed()
    return getattr(fl.keras, name)


@pytest.mark.parametrize(("call", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_label_that_fails_leaves_nothing_half_built():
    opt = ours(fl.partition({"a": fl.Adam()}, lambda path: "b"))
    with pytest.raises(ValueError, match="'b'"):
        opt.build(variables([np.ones(2, "float32")]))
    assert not opt.built


def test_where_keras_does_not_come_up_the_back_end_is_named():
    needed()
    with pytest.raises(AssertionError, match="set KERAS_BACKEND to torch or jax before keras is imported"):
        run_alone("import fallline.keras", KERAS_BACKEND="tensorflow")


def test_other_back_ends_are_refused(monkeypatch):
    monkeypatch.setattr(needed().backend, "backend", lambda: "numpy")
    with pytest.raises(ImportError, match=r"set KERAS_BACKEND to torch or jax .* Got 'numpy'\."):
        importlib.reload(fl.keras)
