"""Dialects are optimizers as any: they print, travel, are refused, race; no library is imported for them."""

from __future__ import annotations

import copy
import inspect
import os
import pickle

import numpy as np
import pytest

import fallline as fl
from fallline.dialects import every
from needed import need
from support import frozen, run_alone, same_bits

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported

DIALECTS = every()
NEEDS = {"torch": ["torch"], "keras": ["torch", "keras"], "optax": ["jax", "optax"]}
ONE_OF_EACH_FORMULA = {cls.usual()._chain: cls for cls in DIALECTS.values()}  # chains are equal if their rules are
OTHERS = [
    lambda **o: fl.dialects.torch.Adam(0.1, amsgrad=True, maximize=True, weight_decay=0.1, **o),
    lambda **o: fl.dialects.torch.AdamW(0.1, (0.5, 0.9), amsgrad=True, **o),
    lambda **o: fl.dialects.torch.SGD(0.1, momentum=0.9, nesterov=True, **o),
    lambda **o: fl.dialects.torch.RMSprop(0.1, momentum=0.9, centered=True, **o),
    lambda **o: fl.dialects.torch.Adafactor(0.1, eps=(1e-3, 1e-2), d=1.5, weight_decay=0.1, maximize=True, **o),
    lambda **o: fl.dialects.torch.Muon(0.1, nesterov=False, adjust_lr_fn="match_rms_adamw", **o),
    lambda **o: fl.dialects.keras.RMSprop(0.1, momentum=0.9, centered=True, clipnorm=1.0, weight_decay=0.1, **o),
    lambda **o: fl.dialects.keras.Lamb(0.1, global_clipnorm=1.0, weight_decay=0.1, **o),
    lambda **o: fl.dialects.keras.Ftrl(0.1, learning_rate_power=-0.2, initial_accumulator_value=0.0, **o),
    lambda **o: fl.dialects.optax.rmsprop(0.1, eps_in_sqrt=False, momentum=0.9, nesterov=True, **o),
    lambda **o: fl.dialects.tensorflow.RMSProp(0.1, momentum=0.9, centered=True, **o),
]
MAKERS = [lambda cls=cls, **o: cls(*([0.1] if "optax" in cls.title or "tensorflow" in cls.title else []), **o)
          for cls in ONE_OF_EACH_FORMULA.values()]  # fmt: skip
every_formula = pytest.mark.parametrize("make", [*MAKERS, *OTHERS], ids=lambda make: repr(make()))


def a_tree(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {"W": rng.standard_normal((3, 4)).astype(dtype), "b": rng.standard_normal((5, 1)).astype(dtype)}


def stepped(opt, steps, dtype=np.float64):
    w = a_tree(0, dtype)
    for k in range(steps):
        w = opt.step(w, a_tree(k + 1, dtype))
    return w


@every_formula
def test_what_is_printed_makes_it_again(make):
    opt = make(nonfinite="skip")
    again = eval(f"fl.{opt!r}")
    assert repr(again) == repr(opt)
    assert same_bits(stepped(again, 5), stepped(opt, 5))


@every_formula
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_engines_agree_to_the_bit(make, dtype):
    native, reference = make(engine="native"), make(engine="reference")
    assert same_bits(stepped(native, 8, dtype), stepped(reference, 8, dtype))
    assert frozen(native.state_dict()["state"]) == frozen(reference.state_dict()["state"])


@every_formula
def test_zero_gradients_and_no_eps_never_make_nan(make):
    opt = make()
    for name in [name for name in ("eps", "eps_root") if name in opt.hyper]:
        opt.hyper[name] = 0.0
    w = {"W": np.ones((3, 4)), "b": np.zeros((5, 1))}
    zero = {name: np.zeros_like(leaf) for name, leaf in w.items()}
    for grads in (zero, zero, a_tree(1), zero, zero):
        w = opt.step(w, grads)
        assert all(np.isfinite(leaf).all() for leaf in w.values())


@every_formula
def test_it_goes_on_to_the_bit_from_a_file_a_pickle_or_a_copy(make, tmp_path):
    opt = make()
    w = stepped(opt, 3)
    opt.save(tmp_path / "run", w)
    loaded, v = fl.load(tmp_path / "run")
    assert (type(loaded), repr(loaded), loaded.t) == (type(opt), repr(opt), 3)
    others = [(loaded, v), (pickle.loads(pickle.dumps(opt)), copy.deepcopy(w)), (copy.deepcopy(opt), copy.deepcopy(w))]
    g = a_tree(9)
    expected = frozen(opt.step(w, g))
    for other, params in others:
        assert frozen(other.step(params, g)) == expected


def test_what_was_set_is_printed_saved_and_loaded(tmp_path):
    opt = fl.dialects.torch.Adam(weight_decay=0.1)  # whose decay is a link, and stays one
    opt.lr, opt.rate = 0.5, 0.0
    opt.save(tmp_path / "run")
    said = "dialects.torch.Adam(lr=0.5, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    assert repr(opt) == repr(fl.load(tmp_path / "run")) == repr(opt.fresh()) == said


def test_it_stands_in_chains_partitions_and_loops():
    opt = fl.chain(fl.clip_norm(1.0), fl.dialects.torch.Adam(0.1), fl.average(0.9))
    assert repr(opt).startswith("chain(clip_norm(max_norm=1.0), dialects.torch.Adam(lr=0.1, ")
    stepped(opt, 3)
    parts = fl.partition({"W": fl.dialects.torch.Adam, "b": fl.dialects.keras.Adam(0.1)}, lambda path: path)
    stepped(parts, 3)
    assert "dialects.keras.Adam(learning_rate=0.1" in repr(parts)
    found = fl.minimize(lambda x: ((x - 3) ** 2).sum(), np.zeros(2), jac=lambda x: 2 * (x - 3),
                        method=fl.dialects.torch.Adam(0.1), options={"maxiter": 500})  # fmt: skip
    assert abs(found.x - 3).max() < 1e-3


LEFT_OUT = {"params", "name", "kwargs", "ema_momentum", "ema_overwrite_frequency"}
OTHERWISE = {("adadelta", "learning_rate")}  # without which optax' climbs


@pytest.mark.parametrize("title", [title for title in DIALECTS if "tensorflow" not in title])
def test_arguments_and_defaults_are_those_of_the_library(title):
    _, library, name = title.split(".")
    for module in NEEDS[library]:
        need(module)
    module = {"torch": "torch.optim", "keras": "keras.optimizers", "optax": "optax"}[library]
    signature = inspect.signature(getattr(need(module), name))
    theirs = {key: p.default for key, p in signature.parameters.items()
              if key not in LEFT_OUT and (name, key) not in OTHERWISE}
    ours = {key: p.default for key, p in DIALECTS[title].arguments.parameters.items() if key in theirs}
    assert ours == theirs
    assert list(ours)[:3] == list(theirs)[:3]


@pytest.mark.parametrize(("call", "kind", "said"), [
    (lambda: fl.dialects.torch.Adam(-1), ValueError, r"lr of dialects.torch.Adam must be ≥ 0. Got -1"),
    (lambda: fl.dialects.torch.Adam(betas=(0.9, 1.0)), ValueError, r"betas of dialects.torch.Adam must be in \[0, 1"),
    (lambda: fl.dialects.torch.Adam(betas=0.9), TypeError, r"betas of dialects.torch.Adam must be 2 numbers, such as"),
    (lambda: fl.dialects.torch.Adam(beta=(0.9, 0.9)), TypeError, r"has no argument 'beta'.*Did you mean betas"),
    (lambda: fl.dialects.torch.Adam([np.ones(2)]), TypeError, r"is made without parameters: pass parameters to step"),
    (lambda: fl.dialects.torch.Adam(capturable=True), ValueError, r"capturable=True .* is not taken here: "),
    (lambda: fl.dialects.torch.SGD(nesterov=True), ValueError, r"nesterov=True .* needs a momentum above 0"),
    (lambda: fl.dialects.keras.Adam(use_ema=True), ValueError, r"use_ema=True .* fallline.average"),
    (lambda: fl.dialects.keras.Adam(clipnorm=1.0, clipvalue=1.0), ValueError, r"Only one of clipnorm"),
    (lambda: fl.dialects.keras.Ftrl(learning_rate_power=0.3), ValueError, r"learning_rate_power .* a number ≤ 0. Got"),
    (lambda: fl.dialects.optax.adam(), TypeError, r"dialects.optax.adam\(.*missing a required argument"),
    (lambda: fl.dialects.optax.adamw(0.1, mask=lambda tree: tree), ValueError, r"mask=.*fallline.by_path"),
    (lambda: fl.dialects.torch.Adam(maximize="no"), TypeError, "maximize of dialects.torch.Adam must be True or False"),
    (lambda: fl.dialects.torch.Adam(10**400), ValueError, "lr of dialects.torch.Adam must be ≥ 0 and finite"),
    (lambda: fl.dialects.torch.Adam("a"), TypeError, "lr of dialects.torch.Adam must be a number"),
    (lambda: fl.dialects.torch.Adam(None), TypeError, "lr of dialects.torch.Adam must be a number"),
    (lambda: fl.dialects.torch.Adam(weight_decay=True), TypeError, "weight_decay of dialects.torch.Adam must be a num"),
    (lambda: fl.dialects.torch.SGD(dampening="a"), TypeError, "dampening of dialects.torch.SGD must be a number where"),
    (lambda: fl.dialects.torch.AdamW(weight_decay=-1), ValueError, "weight_decay of dialects.torch.AdamW must be ≥ 0"),
    (lambda: fl.dialects.keras.Adam(clipnorm=-1), ValueError, "clipnorm of dialects.keras.Adam must be > 0. Got -1"),
    (lambda: fl.dialects.keras.RMSprop(momentum=-1), ValueError, "momentum of dialects.keras.RMSprop must be ≥ 0"),
    (lambda: fl.dialects.keras.RMSprop(momentum="0.9"), TypeError, "momentum of dialects.keras.RMSprop must be a num"),
    (lambda: fl.dialects.optax.sgd(0.1, accumulator_dtype="x"), ValueError, "accumulator_dtype='x' of optax's"),
    (lambda: fl.dialects.tensorflow.Ftrl(True), TypeError, "learning_rate of dialects.tensorflow.Ftrl must be a num"),
    (lambda: fl.dialects.torch.Muon(adjust_lr_fn=[]), ValueError, r"or None. Got \[\]"),
    (lambda: fl.dialects.torch.Muon(ns_steps=2.5), ValueError, r"ns_steps .* must be a whole number from 0 to 99. Got"),
    (lambda: fl.dialects.torch.Muon(adjust_lr_fn="x"), ValueError, r"must be 'original', 'match_rms_adamw' or None"),
    (lambda: fl.dialects.torch.Muon().step(np.ones(3), np.ones(3)), ValueError, r"shape \(3,\) is none.*partition"),
    (lambda: fl.dialects.jax, AttributeError, r"no attribute 'jax'. Known: torch, keras, optax, tensorflow"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_the_remedy(call, kind, said):
    with pytest.raises(kind, match=said):
        call()


def test_what_may_stand_in_a_numbers_place_may_stand_in_every_ones():
    half = fl.schedules.constant(0.5)
    made = [fl.dialects.torch.SGD(half, momentum=half, nesterov=True),
            fl.dialects.torch.AdamW(weight_decay=np.ones((3, 4))),
            fl.dialects.keras.RMSprop(half, momentum=half, weight_decay=half), fl.dialects.optax.sgd(half, half),
            fl.dialects.torch.Adam(half, betas=(half, half)), fl.dialects.tensorflow.RMSProp(half, momentum=half)]
    for opt in made:
        opt.step(np.ones((3, 4)), np.ones((3, 4)))
        for name in [name for name in ("lr", "momentum", "beta1", "rate") if name in opt.hyper]:
            opt.hyper[name] = 0.25
        again = eval(f"fl.{opt!r}", {"fl": fl, "constant": fl.schedules.constant})
        assert dict(again.hyper) == dict(opt.hyper)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras
def test_what_the_libraries_themselves_say_of_an_optimizer_makes_ours():
    keras, torch = need("keras"), need("torch")
    for name in ("Adam", "AdamW", "SGD", "Lion"):
        config = getattr(keras.optimizers, name)().get_config()
        assert getattr(fl.dialects.keras, name)(**config).lr == pytest.approx(config["learning_rate"])
        if name != "Lion":
            defaults = getattr(torch.optim, name)([torch.zeros(1)]).defaults
            assert getattr(fl.dialects.torch, name)(**defaults).lr == defaults["lr"]


def test_a_centred_mean_square_is_never_below_nothing():
    """Fault 6: float32, constant gradients, where rounding makes v - a² negative by step 130."""
    for opt in (fl.dialects.torch.RMSprop(alpha=0.9, centered=True), fl.dialects.keras.RMSprop(centered=True),
                fl.dialects.optax.rmsprop(0.001, centered=True),
                fl.dialects.tensorflow.RMSProp(0.001, centered=True)):  # fmt: skip
        w = np.ones(3, np.float32)
        for _ in range(300):
            w = opt.step(w, np.full(3, 82.04295, np.float32))
        assert np.isfinite(w).all()


@pytest.mark.parametrize(("name", "library", "called"), [
    ("RMSProp", "torch", "RMSprop"), ("Adam", "torch", "Adam"), ("NadamW", "optax", "nadamw"),
    ("AMSGrad", "optax", "amsgrad"), ("LAMB", "keras", "Lamb"),
])  # fmt: skip
def test_who_uses_the_articles_form_where_it_hardly_moves_is_told_of_the_dialect(name, library, called):
    said = f"Give it eps=0, take {library}'s formula, fallline.dialects.{library}.{called}, or scale the loss up."
    with pytest.warns(UserWarning, match=said):
        fl.OPTIMIZERS[name]().step(np.ones(2), np.full(2, 1e-6))


def test_they_race_under_their_names():
    problem = fl.race.Problem(np.array([2.0, 1.0]), lambda w: (w @ w / 2, w))
    result = fl.race.run(problem, optimizers=["Adam", "dialects.torch.Adam", fl.dialects.optax.adamw(0.1)], steps=20,
                         repeats=3, jobs=1, surfaces=())  # fmt: skip
    names = [row["name"] for row in result.document["optimizers"]]
    assert sorted(names) == ["Adam", "dialects.optax.adamw", "dialects.torch.Adam"]


LOADED = """
import sys
import fallline as fl
print("fallline.dialects" in sys.modules)
fl.dialects.torch.Adam, fl.dialects.keras.Adam, fl.dialects.optax.adam, fl.dialects.tensorflow.Ftrl
print(sorted({"torch", "keras", "optax", "tensorflow", "jax"} & set(sys.modules)))
"""


def test_they_are_loaded_when_asked_for_and_no_library_is():
    assert run_alone(LOADED).split("\n")[:2] == ["False", "[]"]
