"""Settings out of range, of the wrong kind or unknown are refused with one sentence that says what would be right."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from support import (
    WITH_EPS,
    WITH_RATE,
    a_tree,
    assert_refused,
    build,
    every_engine,
    every_optimiser,
    memory_of,
    picture,
    same_bits,
    update,
    walk_together,
)

OUT_OF_RANGE = {
    "lr": (-1.0, float("nan")),
    "eps": (-1e-8, float("nan")),
    "momentum": (-0.1, 1.0, float("nan")),
    "rho": (-0.1, 1.0, float("nan")),
    "beta1": (-0.1, 1.0, float("nan")),
    "beta2": (-0.1, 1.0, float("nan")),
    "beta3": (-0.1, 1.0, float("nan")),
    "weight_decay": (-0.1, float("nan")),
    "alpha": (-0.1, float("nan")),
    "alpha_warmup": (-1.0, float("nan")),
    "beta3_warmup": (-1.0, float("nan")),
    "eta_minus": (-0.1, 1.0, float("nan")),
    "eta_plus": (0.9, float("nan")),
    "min_rate": (-0.1, float("nan")),
    "max_rate": (-0.1, float("nan")),
    "trust": (0.0, float("nan")),
    "beta": (0.0, 1.0, float("nan")),
    "d0": (0.0, float("nan")),
    "d_coef": (0.0, float("nan")),
    "adam_beta1": (-0.1, 1.0, float("nan")),
    "adam_beta2": (-0.1, 1.0, float("nan")),
    "adam_eps": (-1e-8, float("nan")),
    "decay_rate": (-0.1, float("nan")),
    "threshold": (0.0, float("nan")),
    "eps1": (-1e-30, float("nan")),
    "eps2": (-1e-3, float("nan")),
}
W_AND_B = {"W": np.ones(2), "b": np.ones(2)}
OPEN = (("AdaDelta", "eps"), ("ScheduleFreeAdamW", "beta1"))  # which cannot be 0, as they can elsewhere


@pytest.mark.parametrize(("schedule", "shown"), [
    (lambda: 0.1, r"<lambda>\(\)"),
    (lambda t, of: t, r"<lambda>\(t, of\)"),
])  # fmt: skip
def test_a_schedule_that_is_no_function_of_one_argument_is_refused_where_it_is_given(schedule, shown):
    said = "must be a function of one argument, the number of completed steps"
    opt, w = fl.Adam(), np.ones(3)
    for call in (lambda: fl.Adam(schedule), lambda: setattr(opt, "lr", schedule), lambda: fl.Adam({"a": schedule})):
        assert_refused(call, f"^lr of Adam, a schedule, {said}. Got {shown}", opt, w)
    for known in (abs, max, "{:g}".format, lambda t, scale=1.0: scale):  # which can be called with one
        assert fl.Adam(known).lr is known
    for name in ("constant", "cosine"):
        schedule = getattr(fl.schedules, name)
        assert_refused(lambda schedule=schedule: fl.Adam(schedule), rf"Got the class {name} itself: make one, {name}\(",
                       opt, w)
    for other in (fl.SGD, int):  # of which none is a function of the number of steps
        assert_refused(lambda other=other: fl.Adam(other), rf"Got the class {other.__name__}\.$", opt, w)
    with pytest.raises(TypeError, match="by_path needs a function of one argument, the leaf's path"):
        fl.by_path(lambda: 0.1)


@pytest.mark.parametrize(("found", "message"), [
    ({"a": 0.1}, r"at 'W', one leaf, must be a number, a schedule or an array of its shape. Got \{'a': 0.1\}"),
    ([0.1, 0.2], r"at 'W', one leaf, must be a number, a schedule or an array of its shape. Got \[0.1, 0.2\]"),
    (fl.by_path(lambda path: 0.1), r"at 'W', one leaf, must be .*Got by_path\(<lambda>\)"),
    (-1.0, r"at 'W' must be ≥ 0. Got -1.0"),
    (fl.schedules.cosine, "at 'W' must be .*Got the class cosine itself: make one"),
])  # fmt: skip
def test_what_a_function_of_the_path_returns_is_refused_where_the_leaves_are_known(found, message):
    by_path = fl.by_path(lambda path: found)
    for lr in (by_path, {"W": by_path, "b": 0.1}):
        opt = fl.Adam(lr)
        assert_refused(lambda opt=opt: opt.step(W_AND_B, W_AND_B), f"lr of Adam {message}", opt, W_AND_B)


@pytest.mark.parametrize(("given", "got"), [
    ("fl.accumulate(fl.SGD(), 2)", r"SGD\(lr=0.001\)"),
    ("fl.accumulate(fl.SGD())", r"SGD\(lr=0.001\)"),
    ("fl.accumulate(lambda t: 2, fl.SGD())", "<lambda>"),
    ("fl.accumulate(10**400, fl.SGD())", "int"),
    ("fl.accumulate(10**5000, fl.SGD())", "<int>"),
])  # fmt: skip
def test_a_count_that_is_none_is_refused_before_its_chain_is_looked_at(given, got):
    with pytest.raises((TypeError, ValueError), match=rf"n of accumulate must be a whole number ≥ 1.*Got {got}\.$"):
        eval(given)


@pytest.mark.parametrize("item", [fl.SGD(), fl.SGD, fl.schedules.constant])
def test_what_is_no_function_is_no_rule(item):
    with pytest.raises(fl.FormulaError, match=r"A rule is a function of g, ... Got (SGD\(lr=0.001\)|the class \w+)\."):
        fl.rule(item)
    with pytest.raises(fl.FormulaError, match=r"A modifier of the increment is a function of d, ... Got (SGD|the)"):
        fl.after(item)
    with pytest.raises(TypeError, match=r"by_path needs a function of the leaf's path. Got (SGD|the class)"):
        fl.by_path(item)
    with pytest.raises(fl.FormulaError, match="weight_decay is a modifier of the increment already"):
        fl.before(fl.weight_decay)


def assert_setting_refused(name, key, value, error, message):
    """By the constructor, and where it is assigned."""
    opt = fl.OPTIMIZERS[name]()
    kept = getattr(opt, key)
    for call in (lambda: fl.OPTIMIZERS[name](**{key: value}), lambda: setattr(opt, key, value)):
        with pytest.raises(error, match=message):
            call()
    assert getattr(opt, key) == kept


@every_optimiser
def test_a_setting_out_of_its_range_is_refused_with_range_and_value(name):
    for key in fl.OPTIMIZERS[name]().hyper:
        for value in OUT_OF_RANGE.get(key, (float("nan"),)) + ((0.0,) if (name, key) in OPEN else ()):
            assert_setting_refused(name, key, value, ValueError, rf"{key}.* must be .*Got {value}")


@every_optimiser
def test_a_setting_that_is_no_number_is_refused(name):
    for key in fl.OPTIMIZERS[name]().hyper:
        for value in ("0.5", None, 1j, object()):
            assert_setting_refused(name, key, value, TypeError, key)


@every_optimiser
def test_an_unknown_setting_is_refused_and_the_known_ones_are_listed(name):
    known = list(fl.OPTIMIZERS[name]().hyper)
    with pytest.raises(TypeError, match="learning_rate") as caught:
        fl.OPTIMIZERS[name](learning_rate=0.1)
    assert all(key in str(caught.value) for key in known)


@pytest.mark.parametrize(("name", "given", "remedy"), [
    ("AdamW", "betas", r"Write beta1=\.\.\., beta2=\.\.\. in its place"),
    ("Adan", "betas", r"Write beta1=\.\.\., beta2=\.\.\., beta3=\.\.\. in its place"),
    ("Adam", "b1", r"Write beta1=\.\.\. in its place"),
    ("Lion", "b2", r"Write beta2=\.\.\. in its place"),
    ("RMSProp", "learning_rate", r"Write lr=\.\.\. in its place"),
    ("Adam", "amsgrad", r"an optimizer of its own: fallline\.AMSGrad"),
    ("SGD", "momentum", r"an optimizer of its own: fallline\.Momentum"),
    ("SGD", "nesterov", r"an optimizer of its own: fallline\.Nesterov"),
    ("Adam", "weight_decay", r"fallline\.chain\(\.\.\., fallline\.weight_decay\(rate\)\)"),
    ("Adam", "params", r"Pass parameters to step: opt\.step\(params, grads\)\.$"),
    ("Muon", "momentun", "Did you mean momentum"),
    ("RMSProp", "alpha", r"Write rho=\.\.\. in its place"),
    ("SGD", "betas", r"Known: lr\.$"),
    ("AdaDelta", "learning_rate", r"Known: rho, eps\. fallline\.dialects\.keras\.Adadelta has it\.$"),
])  # fmt: skip
def test_a_setting_by_the_name_that_others_give_it_gets_the_name_here_where_that_is_clear(name, given, remedy):
    with pytest.raises(TypeError, match=f"^{name} has no hyper-parameter '{given}'.*{remedy}"):
        fl.OPTIMIZERS[name](**{given: 0.9})


def test_names_in_chains_are_told_from_those_of_their_links():
    chain = fl.SGD(), fl.weight_decay()
    with pytest.raises(TypeError, match=r"no hyper-parameter 'weight_decay'. Known: lr, rate, .*weight_decay\.rate\.$"):
        fl.Optimizer(*chain, weight_decay=0.1)
    with pytest.raises(TypeError, match=r"'sgd\.lrr'.* Did you mean sgd\.lr\?$"):
        fl.Optimizer(*chain, **{"sgd.lrr": 0.1})


@every_optimiser
def test_an_unknown_attribute_is_refused_and_the_known_ones_are_listed(name):
    opt = fl.OPTIMIZERS[name]()
    known = list(opt.hyper)
    with pytest.raises(AttributeError, match="learning_rate") as caught:
        opt.learning_rate = 0.1
    assert all(key in str(caught.value) for key in known)
    with pytest.raises(AttributeError, match="learning_rate") as caught:
        _ = opt.learning_rate
    assert all(key in str(caught.value) for key in known)


@pytest.mark.parametrize("make", [fl.Adam, lambda: fl.chain(fl.SGD(), fl.average()),
                                  lambda: fl.mask(lambda path: True, fl.SGD())], ids=["Adam", "chain", "mask"])
def test_what_is_no_setting_cannot_be_set_and_the_message_says_what_can(make):
    opt = make()
    for name in ("engine", "nonfinite", "threads", "state_dir"):
        with pytest.raises(AttributeError, match=rf"^{name} is chosen when an optimizer is made, \w+\(\.\.\., {name}="):
            setattr(opt, name, 1)
    for name in ("state", "hyper", "calls", "skipped", "averaged", "step"):
        with pytest.raises(AttributeError, match=rf"^{name} of \w+ cannot be set. Its hyper-parameters can: .*lr"):
            setattr(opt, name, 1)
    opt.t = 3
    assert opt.t == 3


@pytest.mark.parametrize("value", ["fast", [0.1], {"a": 0.1}, np.ones(2), fl.schedules.constant(0.1)])
def test_a_schedule_must_return_a_number_and_nothing_else_that_a_setting_may_be(value):
    opt = fl.SGD(lambda t: value)
    message = r"^lr of SGD must be a number ≥ 0\. Got .* from its schedule at t=0"
    assert_refused(lambda: opt.step(W_AND_B, W_AND_B), message, opt, W_AND_B)


@pytest.mark.parametrize(("option", "value"), [("nonfinite", "ignore"), ("engine", "gpu")])
@every_optimiser
def test_an_unknown_option_value_is_refused(name, option, value):
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        fl.OPTIMIZERS[name](**{option: value})


@every_optimiser
@pytest.mark.parametrize("given", ["generator", "list of arrays", "array", "dict"])
def test_parameters_given_to_the_constructor_get_the_remedy(name, given):
    arrays = [np.ones(2), np.ones(3)]
    value = {
        "generator": (array for array in arrays),
        "list of arrays": arrays,
        "array": arrays[0],
        "dict": {"W": arrays[0]},
    }[given]
    if name in WITH_RATE:
        with pytest.raises(TypeError, match=r"is made without parameters: pass .* opt\.step\(params, grads\)\.$"):
            fl.OPTIMIZERS[name](value, lr=0.1)
    if name == "AdaDelta" or given == "generator":
        with pytest.raises(TypeError, match=r"opt\.step\(params, grads\)"):
            fl.OPTIMIZERS[name](value)
    else:
        # these might be settings, one per leaf or coordinate: refused at the latest when they fit no parameter
        with pytest.raises((TypeError, ValueError)):
            fl.OPTIMIZERS[name](value).step({"x": np.ones(5)}, {"x": np.ones(5)})


@pytest.mark.parametrize("name", WITH_EPS)
@every_engine
def test_a_setting_that_only_starts_the_state_is_refused_once_it_has_started(name, engine):
    opt = build(name, engine)
    opt.eps = 0.5
    update(opt, np.ones(2))
    before = memory_of(opt)
    with pytest.raises((ValueError, AttributeError), match=r"eps.*reset"):
        opt.eps = 0.25
    assert opt.eps == 0.5
    assert memory_of(opt) == before
    opt.reset()
    opt.eps = 0.25
    wanted = update(build(name, engine, eps=0.25), np.ones(2))
    assert same_bits(update(opt, np.ones(2)), wanted)


@pytest.mark.parametrize("t", [-1, 1.5, "3", None, float("nan")])
def test_a_step_count_must_be_a_whole_number(t):
    opt = fl.Adam()
    opt.update(np.ones(2))
    with pytest.raises((TypeError, ValueError), match=r"\bt\b"):
        opt.t = t
    assert opt.t == 1


@pytest.mark.parametrize("name", WITH_RATE)
@every_engine
def test_a_schedule_that_goes_astray_is_refused_at_that_step(name, engine):
    said = [0.1]
    opt, twin, w, v = build(name, engine, lr=lambda t: said[0]), build(name, engine, lr=0.1), a_tree(0), a_tree(0)
    for seed, value in enumerate([-1.0, float("nan"), "fast", None]):
        walk_together(opt, w, twin, v, (seed,))
        said[0] = value
        assert_refused(lambda: opt.step(w, a_tree(9)), rf"lr.*{value}", opt, w)
        said[0] = 0.1
    opt.lr = 0.1
    walk_together(opt, w, twin, v, (3, 4))


@pytest.mark.parametrize("name", WITH_RATE)
@every_engine
def test_an_error_inside_a_schedule_reaches_the_caller_and_changes_nothing(name, engine):
    def rate(completed):
        return [0.1, 0.1][completed]

    opt, w = build(name, engine, lr=rate), a_tree(0)
    opt.step(opt.step(w, a_tree(1)), a_tree(2))
    before = picture(opt, w)
    with pytest.raises(IndexError):
        opt.step(w, a_tree(3))
    assert picture(opt, w) == before


WRONG_LINKS = {
    "a negative norm": (fl.clip_norm, -1.0), "zero": (fl.clip_norm, 0), "a text": (fl.weight_decay, "x"),
    "a truth": (fl.clip_value, True), "NaN": (fl.l2, float("nan")), "infinity": (fl.l2, float("inf")),
    "a tree with a bad leaf": (fl.weight_decay, {"W": 0.1, "b": [0.5, -1.0]}),
    "an array with a bad number": (fl.weight_decay, np.array([0.1, -1.0])),
    "a schedule of two arguments": (fl.l2, lambda t, lr: 0.1), "a share of 1": (fl.average, 1.0),
    "a rule's own": (fl.rules.adam, -1.0), "parameters": (fl.l2, iter([1.0])), "nothing": (fl.l2, None),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_LINKS)
def test_a_setting_out_of_range_is_refused_where_it_is_written_as_its_chain_would(wrong):
    link, value = WRONG_LINKS[wrong]
    with pytest.raises((TypeError, ValueError)) as at_once:
        link(value)
    links = [link] if link.kind == "rule" else [fl.rules.sgd, link] if link.kind == "after" else [link, fl.rules.sgd]
    own = [h for h, hyper in link.hyper.items() if hyper.default is not None]
    with pytest.raises(type(at_once.value)) as later:
        fl.chain(*links).hyper[f"{link.name}.{own[0]}"] = value
    assert str(later.value) == str(at_once.value)
    assert f"{own[0]} of {link.name}" in str(at_once.value)


def test_the_place_of_a_bad_setting_within_a_tree_is_named():
    for make in (fl.weight_decay, fl.SGD):
        for bad, said in ((-1.0, "Got -1.0. It stands at 'b/1'"), ("x", "Got 'x'. It stands at 'b/1'"),
                          (lambda: 0.1, r"Got <lambda>\(\). It stands at 'b/1'"),
                          (np.array([0.0, -2.0]), "Got -2.0 among the values .*It stands at 'b/1'")):  # fmt: skip
            with pytest.raises((TypeError, ValueError), match=said):
                make({"W": 0.1, "b": [0.5, bad]})


@pytest.mark.parametrize("lr", [
    np.ma.masked, np.ma.array([0.1, 0.2], mask=[1, 0])[0], np.ma.array(0.1, mask=True), lambda t: np.ma.masked,
    np.ma.array([0.1, 0.2], mask=[1, 0]), np.array([1 + 1j, 2.0]),
])  # fmt: skip
def test_a_masked_or_complex_setting_is_none(lr):
    w = np.ones(2)
    with pytest.raises(TypeError, match=r"^lr of SGD.* must be (a number|an array of real numbers)"):
        fl.SGD(lr).step(w, np.ones(2))
    assert w.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [">f8", ">f4", "float16", "longdouble", "int64"])
def test_settings_by_coordinate_may_be_real_numbers_of_any_dtype(dtype):
    assert fl.SGD(np.ones(2, dtype)).step(np.ones(2), np.ones(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("cls", "given"), [(fl.Rprop, {"lr": 1e39, "max_rate": 1.0}), (fl.AdaDelta, {"eps": 1e39}),
                                            (fl.Adam, {"eps": 1e39})])
def test_a_start_of_the_state_that_the_dtype_cannot_hold_is_refused(cls, given):
    w = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"State of \w+ cannot start at 1e\+39, which is too large for float32\."):
        cls(**given).step(w, np.ones(2))
    assert w.tolist() == [1.0, 1.0]
    cls(**given).step(np.ones(2), np.ones(2))
