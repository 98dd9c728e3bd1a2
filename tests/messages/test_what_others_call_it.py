"""What users of torch, optax, Keras, SciPy and scikit-learn write by habit is answered with what to write here."""

from __future__ import annotations

import argparse
import inspect
import re

import numpy as np
import pytest

import fallline as fl
from fallline._messages.elsewhere import ATTRIBUTES, LOOPS, NAMES, SAME, SETTINGS
from needed import need

MODULES = ["torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils", "optax", "keras.optimizers",
           "keras.optimizers.schedules", "keras.callbacks", "scipy.optimize"]  # fmt: skip
OTHERS = {"Tensor", "Module"}  # what torch.optim has of torch


def said_of(name, owner=fl):
    with pytest.raises(AttributeError) as caught:
        getattr(owner, name)
    assert caught.value.name == name
    return str(caught.value)


def suggested(text):
    """The names of fallline in an answer."""
    found = re.findall(r"\bfallline((?:\.\w+)+)", text.partition("' has no ")[2])
    if "Did you mean" in text:
        found += ["." + name for name in text.partition("Did you mean ")[2].rstrip("?").split(" or ")]
    return found


def assert_there(text):
    for name in suggested(text):
        owner = argparse.Namespace(opt=fl.Adam()) if name.startswith(".opt.") else fl
        for part in name.strip(".").split("."):
            owner = getattr(owner, part)


def own_names(module):
    root = module.__name__.partition(".")[0]
    return [name for name, value in vars(module).items() if not name.startswith("_") and name not in OTHERS
            and (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__.startswith(root)]


@pytest.fixture(autouse=True)
def _keras_by_torch(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")


@pytest.mark.parametrize("module", MODULES)
def test_every_function_and_class_of_another_library_has_its_answer(module):
    if module.startswith("keras"):
        need("torch")
    names = [name for name in own_names(need(module)) if name not in fl.__all__]
    assert len(names) > 4
    unanswered = []
    for name in names:
        text = said_of(name)
        assert_there(text)
        if text == f"module 'fallline' has no attribute {name!r}.":
            unanswered.append(name)
    assert unanswered == []


def test_names_that_people_write_are_told_what_there_is():
    for name, answer in (
        ("AdamOptimizer", "Did you mean Adam?"), ("LBFGS", "It is SciPy's: "), ("zeros_like_loss", "Losses and models"),
        ("ExponentialMovingAverage", "Did you mean average?"), ("EMA", "Did you mean average?"),
        ("cosine_decay_schedule", "Did you mean schedules.cosine?"), ("LambdaLR", "Any function of the number"),
        ("get_linear_schedule_with_warmup", "Did you mean schedules.linear?"), ("yogi", "mean dialects.optax.yogi?"),
        ("apply_updates", "Write w = opt.step(w, g)"), ("GradScaler", "float16 and bfloat16"), ("Lookahead", "mean "),
        ("sophia", "a rule of a few lines"), ("lr_scheduler", "Did you mean schedules?"),
    ):  # fmt: skip
        assert answer in said_of(name), name
    assert all(name.strip(".").split(".")[0] in dir(fl) for here in NAMES.values() for name in here.split(" or "))


def test_schedules_of_other_libraries_are_found_among_ours():
    for name, answer in (
        ("CosineAnnealingLR", "cosine"), ("StepLR", "step"), ("MultiStepLR", "piecewise"), ("OneCycleLR", "one_cycle"),
        ("ReduceLROnPlateau", "plateau"), ("SequentialLR", "join"), ("PolynomialDecay", "polynomial"),
        ("warmup_cosine_decay_schedule", "cosine"), ("noam", "inverse_sqrt"), ("cosin", "cosine"),
        ("CosineAnnealingWarmRestarts", "cosine_restarts"), ("WSD", "warmup_stable_decay"),
    ):  # fmt: skip
        assert re.search(rf"Did you mean (schedules\.)?{answer}\?$", said_of(name, fl.schedules)), name
    with pytest.raises(TypeError, match=r"'T_max'. Known: .* Write steps=... in its place."):
        fl.schedules.cosine(0.1, T_max=100)


NOTHING_ALIKE = {  # which these formulas do not have
    "Adan": {"eps_root"}, "LARS": {"eps", "nesterov"},
    "Adafactor": {"momentum", "min_dim_size_to_factor", "multiply_by_parameter_scale", "relative_step", "beta_2_decay"},
    "Muon": {"rms_rate", "muon_a", "muon_b", "muon_c", "adam_lr_ratio"},
}  # fmt: skip
TAKEN = {"torch": ("torch.optim", "params"), "optax": ("optax", ""), "keras": ("keras.optimizers", "kwargs")}


@pytest.mark.parametrize("library", TAKEN)
def test_every_argument_of_another_librarys_optimizer_of_that_name_has_its_answer(library):
    module, other = TAKEN[library]
    if library == "keras":
        need("torch")
    theirs, seen = {name.lower(): value for name, value in vars(need(module)).items() if callable(value)}, 0
    unanswered = []
    for name, cls in fl.OPTIMIZERS.items():
        arguments = inspect.signature(theirs[name.lower()]).parameters if name.lower() in theirs else ()
        for argument in set(arguments) - {other} - set(inspect.signature(cls).parameters):
            with pytest.raises((TypeError, ValueError)) as caught:
                cls(**{argument: 0.5})
            answer = str(caught.value).partition(f"Known: {', '.join(cls.rule.hyper)}.")[2]
            unanswered += [(name, argument)] * (not answer and argument not in NOTHING_ALIKE.get(name, ()))
            assert_there("' has no " + answer.partition(" Did you mean")[0])
            seen += 1
    assert unanswered == []
    assert seen > 20


def test_every_attribute_of_torchs_and_keras_optimizers_has_its_answer():
    torch, keras = need("torch"), need("keras")
    opt = fl.Adam()
    theirs = {name for cls in (torch.optim.Adam, torch.optim.lr_scheduler.StepLR) for name in dir(cls)}
    of_keras = ("apply_gradients", "build", "built", "variables", "iterations", "learning_rate", "clipnorm",
                "get_config", "from_config", "use_ema", "update_step", "exclude_from_weight_decay", "set_weights")
    theirs |= {name for name in of_keras if hasattr(keras.optimizers.Adam(), name)}
    theirs |= {"init", "minimize", "fit", "params", "grad", "betas", "lrr", "stat", *ATTRIBUTES}
    for name in theirs - set(dir(opt)) - {"profile_hook_step"}:
        if name.startswith("_"):
            continue
        text = said_of_attribute(opt, name)
        assert re.search(r"Its hyper-parameters: lr, beta1, beta2, eps\. \S", text), text
        assert_there("' has no " + text)
    with pytest.raises(AttributeError, match=r"Write opt\.lr\.$"):
        opt.learning_rate = 0.1
    with pytest.raises(AttributeError, match=r"Did you mean opt\.state\?"):
        _ = opt.stat


def said_of_attribute(opt, name):
    with pytest.raises(AttributeError) as caught:
        getattr(opt, name)
    return str(caught.value)


def test_an_answer_names_a_setting_only_if_the_optimizer_has_it():
    for cls in fl.OPTIMIZERS.values():
        known = cls().hyper
        for name in {*SAME, *SETTINGS} - set(known):
            with pytest.raises(TypeError, match=rf"{cls.__name__} has no hyper-parameter '{name}'") as caught:
                cls(**{name: 0.5})
            for own in re.findall(r"Write (\w+)=\.\.\. in its place", str(caught.value)):
                assert own in known


def value_and_grad(w):
    return float(w @ w), 2 * w


CALLS = {"minimize": (fl.minimize, (value_and_grad, np.ones(2)), {"jac": True}),
         "descend": (fl.descend, (value_and_grad, np.ones(2), fl.SGD()), {"steps": 1})}  # fmt: skip


@pytest.mark.parametrize(("loop", "name"), [(loop, name) for loop in LOOPS for name in LOOPS[loop]])
def test_an_argument_that_a_loop_does_not_have_is_told_what_to_write(loop, name):
    function, args, named = CALLS[loop]
    known = inspect.signature(function).parameters
    assert name not in known
    with pytest.raises(TypeError, match=rf"^{loop} has no argument '{name}'\. \S") as caught:
        function(*args, **named, **{name: 1})
    assert caught.value.__cause__ is None
    for own in re.findall(r"Write (\w+)=", str(caught.value)):
        assert own in known
    assert_there("' has no " + str(caught.value))


@pytest.mark.parametrize(("call", "answer"), [
    (lambda: fl.minimize(value_and_grad), r"^minimize needs x0: minimize\(fun, x0\)\.$"),
    (lambda: fl.descend(value_and_grad, np.ones(2), steps=3),
     r"^descend needs optimizer: descend\(value_and_grad, params, optimizer, steps=\.\.\.\)\.$"),
    (lambda: fl.descend(value_and_grad, np.ones(2), fl.SGD()), r"^descend needs steps: "),
    (lambda: fl.descend(value_and_grad, np.ones(2), fl.SGD(), 10),
     r"^descend takes 3 arguments by position \(value_and_grad, params, optimizer\), all .* by name\. Got 4, .* 10"),
    (lambda: fl.descend(value_and_grad, np.ones(2), fl.SGD(), params=1, steps=1), "^params of descend was given twice"),
    (lambda: fl.descend(value_and_grad, np.ones(2), fl.SGD(), setps=1), r"'setps'\. Did you mean steps\?$"),
    (lambda: fl.descend(value_and_grad, np.ones(2), fl.SGD(), zebra=1), r"'zebra'\. Known: value_and_grad, params, "),
    (lambda: fl.chain(fl.SGD(), lr=0.1), r"^chain has no argument 'lr'\. "),
    (lambda: fl.partition({"a": fl.SGD()}), r"^partition needs label: partition\(parts, label\)"),
    (lambda: fl.accumulate(), r"^accumulate needs n: "),
    (lambda: fl.mask(lambda path: True), r"^mask needs optimizer: "),
    (lambda: fl.minimize(value_and_grad, [1.0], fl.Adam()), r"args, .* method=Adam\(lr=0\.001"),
    (lambda: fl.minimize(value_and_grad, [1.0], "adam"), r"args, .* method='adam'"),
    (lambda: fl.minimize(value_and_grad, [1.0], fl.Nadam, jac=True), r"args, .* method="),
])  # fmt: skip
def test_a_call_that_python_would_refuse_is_answered_in_a_sentence(call, answer):
    with pytest.raises(TypeError, match=answer) as caught:
        call()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_error_of_the_callers_own_function_is_not_taken_for_one_of_the_call():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        fl.minimize(lambda x, y: 0.0, [1.0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        fl.descend(lambda w: value_and_grad(w, lr=1), np.ones(2), fl.SGD(), steps=1)


def test_an_option_that_is_none_is_told_what_to_write():
    for name, answer in (("lr", r"method=fallline\.Adam\(lr=\.\.\.\)"), ("maxfev", "maxiter"), ("tolerance", "gtol"),
                         ("callbacks", "callback=")):
        with pytest.raises(ValueError, match=rf"^Unknown option '{name}' .*{answer}"):
            fl.minimize(value_and_grad, [1.0], jac=True, options={name: 1})


def test_a_run_prints_in_a_line():
    run = fl.descend(value_and_grad, np.ones(3), fl.SGD(0.1), steps=200)
    assert re.fullmatch(r"Descent\(t=200, value=\d\S+, message='took all 200 steps.*', params=array\(.*\)\)", repr(run))
    large = fl.descend(lambda w: (0.0, 0 * w), np.ones(10_000), fl.SGD(), steps=3)
    assert len(repr(large)) < 200
