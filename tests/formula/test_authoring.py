"""Rules of the user's own: what a signature and a formula may say, and what the errors answer."""

import math
import pickle
import re
from typing import Any  # noqa: F401  (named by an annotation below)

import numpy as np
import pytest

import fallline as fl
from needed import need


def a_rule(formula):
    """A formula of g and lr as an optimizer."""
    return fl.Optimizer(fl.rule(lambda g, *, lr=0.1: formula(g, lr)))


def one_step(opt, x=1.0, g=2.0):
    return opt.step(np.array([x]), np.array([g])).item()


def test_a_closure_a_lambda_and_a_helper_function_make_rules():
    scale = 3.0

    def helper(g):
        return fl.sign(g) * scale

    @fl.rule
    def closing(g, *, lr=0.1):
        return -lr * helper(g)

    assert one_step(fl.Optimizer(closing, lr=1.0)) == -2.0
    assert one_step(fl.Optimizer(fl.rule(lambda g, *, lr=0.5: -lr * g))) == 0.0


@pytest.mark.parametrize(("formula", "number"), [
    (lambda g, lr: np.sqrt(np.abs(g)), math.sqrt(2)),
    (lambda g, lr: np.where(g > 0, g, -g), 2.0),
    (lambda g, lr: np.maximum(g, 5.0), 5.0),
    (lambda g, lr: np.minimum(5.0, g), 2.0),
    (lambda g, lr: np.float64(2) * np.sign(g) + np.square(g), 6.0),
    (lambda g, lr: abs(-g) - +g, 0.0),
    (lambda g, lr: fl.root(g * g), 2.0),
    (lambda g, lr: lr ** 2 * g + lr ** 0.5 * 0, 0.02),
    (lambda g, lr: fl.log(lr) * g, 2 * math.log(0.1)),
    (lambda g, lr: np.log(lr) + np.exp(fl.exp(lr)) + 0 * g, math.log(0.1) + math.exp(math.exp(0.1))),
    (lambda g, lr: fl.where(fl.log(lr - lr) < -1e300, fl.exp(-1e9) + 4, 0) * g, 8.0),
    (lambda g, lr: 1 / fl.exp(1e4 * lr) + fl.where(fl.exp(1e6 * lr) > 1e300, g, 0), 2.0),
    (lambda g, lr: fl.where(fl.log(-lr) == fl.log(-lr), 0, g), 2.0),
    (lambda g, lr: fl.where(g >= 2, fl.where(g <= 2, fl.where(g == 2, 7, 0), 0), 0), 7.0),
    (lambda g, lr: fl.where(g != 2, 1, 8) + fl.where(g < 2, 1, 0), 8.0),
    (lambda g, lr: 1 / g, 0.5),
    (lambda g, lr: 10 - g, 8.0),
])  # fmt: skip
@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_the_vocabulary_of_formulas_and_numpys_names_for_it(formula, number, engine):
    opt = fl.Optimizer(fl.rule(lambda g, *, lr=0.1: formula(g, lr)), engine=engine)
    assert one_step(opt, x=0.0) == pytest.approx(number, abs=0, rel=1e-15)


def test_the_words_work_on_numbers_and_on_arrays_too():
    a = np.array([-4.0, -0.0, 0.0, 9.0, np.nan])
    assert fl.sqrt(9.0) == 3.0
    assert math.isnan(fl.sqrt(-1.0))
    assert fl.root(0.0) > 0
    assert (fl.log(math.e), fl.log(0), fl.exp(np.float32(0)), fl.exp(710.0)) == (1.0, -math.inf, 1.0, math.inf)
    assert math.isnan(fl.log(-1.0))
    assert math.isnan(fl.log(math.nan))
    with pytest.raises(fl.FormulaError, match="log is for single numbers"):
        fl.log(a)
    np.testing.assert_array_equal(fl.sign(a), [-1, 0, 0, 1, np.nan])
    np.testing.assert_array_equal(fl.maximum(a, 1.0), [1, 1, 1, 9, np.nan])
    np.testing.assert_array_equal(fl.minimum(1.0, a), [-4, 0, 0, 1, np.nan])
    np.testing.assert_array_equal(fl.abs(a), [4, 0, 0, 9, np.nan])
    assert fl.root(np.float32(0)) ** 2 == pytest.approx(np.finfo(np.float32).tiny)


@pytest.mark.parametrize(("formula", "remedy"), [
    (lambda g, lr: g if g > 0 else -g, "where(condition, a, b)"),
    (lambda g, lr: max(g, 0), "maximum(a, b)"),
    (lambda g, lr: g > 0 and g, "where(condition, a, b)"),
    (lambda g, lr: math.sqrt(g), "fallline's sqrt"),
    (lambda g, lr: math.sqrt(lr) * g, "fallline's sqrt"),
    (lambda g, lr: g**2, "write g*g for g**2"),
    (lambda g, lr: 2**g, "Powers are for scalars"),
    (lambda g, lr: np.power(g, 3), "write g*g for g**2"),
    (lambda g, lr: np.exp(g), "exp of an array is not rounded the same on every machine. It is for scalars"),
    (lambda g, lr: fl.log(g) * lr, "log of an array"),
    (lambda g, lr: np.sin(g), "np.sin is not in the vocabulary"),
    (lambda g, lr: np.sum(g), "Write total(...) in its place"),
    (lambda g, lr: g / np.linalg.norm(g), "np.linalg.norm is not in the vocabulary"),
    (lambda g, lr: g / np.linalg.norm(g), "Write norm(...) in its place"),
    (lambda g, lr: g - np.mean(g, axis=0), "rule(whole_leaf=True)"),
    (lambda g, lr: g / np.max(g), "rule(whole_leaf=True)"),
    (lambda g, lr: g.T, ".T of an array is not in the vocabulary"),
    (lambda g, lr: np.hypot(g, g), "Write sqrt(a*a + b*b) in its place"),
    (lambda g, lr: fl.where(lr % 10 == 0, g, 0), "Write a schedule"),
    (lambda g, lr: divmod(g, 2)[0], "`divmod` is not in the vocabulary"),
    (lambda g, lr: g.sum(), "Write total(...) in its place"),
    (lambda g, lr: g @ g * g, "Write total(a*b) in its place"),
    (lambda g, lr: g.clip(-1, 1), "Write minimum(maximum(g, low), high) in its place"),
    (lambda g, lr: np.where(np.isnan(g), 0, g), "Write g != g in its place"),
    (lambda g, lr: np.add.reduce(g), "Write total(...) in its place"),
    (lambda g, lr: np.sqrt(g, where=g > 0), "np.sqrt takes no where= in a formula"),
    (lambda g, lr: np.multiply(g, lr, out=g), "np.multiply takes no out= in a formula"),
    (lambda g, lr: np.maximum.reduce(g), "log exp."),
    (lambda g, lr: np.asarray(g), "have no numbers yet"),
    (lambda g, lr: np.float64(g), "have no numbers yet"),
    (lambda g, lr: np.ones(3)[lr], "have no numbers yet"),
    (lambda g, lr: f"{g:.3f}" and g, "my_rule.formula(g, ..., lr=0.1)"),
    (lambda g, lr: {0.1: 1.0}[lr] * g, "for a table by step use a schedule"),
    (lambda g, lr: g.__setitem__(0, 1) or g, "cannot change a value in place"),
    (lambda g, lr: g.__delitem__(0) or g, "cannot change a value in place"),
    (lambda g, lr: fl.total(g, g) * g, 'over "leaf" or over "tree". Got <array g>'),
    (lambda g, lr: fl.rules.sgd(g, lr=lr), "sgd.formula(g, ...)"),
    (lambda g, lr: g * (lr, 1.0), "which may be an array shaped like the parameter"),
    (lambda g, lr: g * True, "Got bool; write 1 or 0."),
    (lambda g, lr: g * 1j, "Got complex."),
    (lambda g, lr: g[0], "coordinate by coordinate"),
    (lambda g, lr: len(g) * g, "coordinate by coordinate"),
    (lambda g, lr: (g > 0) & (lr > 0), "where(a, where(b, x, y), y)"),
    (lambda g, lr: (g > 0) * g, "where(g > 0, 1, 0)"),
    (lambda g, lr: ~(g > 0), "vocabulary"),
    (lambda g, lr: g > 0, "where(g > 0, 1, 0)"),
    (lambda g, lr: fl.where(g, 1, 2), "needs a comparison"),
    (lambda g, lr: g * np.ones(3), "make it a hyper-parameter"),
    (lambda g, lr: None, "Got NoneType"),
])  # fmt: skip
def test_a_formula_outside_the_vocabulary_is_refused_with_what_to_write_instead(formula, remedy):
    with pytest.raises(fl.FormulaError) as error:
        a_rule(formula)
    assert remedy in str(error.value)
    assert "rule" in str(error.value)


def annotated(annotation):
    """A formula whose lr has an annotation as text."""
    def formula(g, *, lr=0.1):
        return -lr * g
    formula.__annotations__["lr"] = annotation
    return formula


def generator(g, *, lr=0.1):
    yield -lr * g


async def coroutine(g, *, lr=0.1):
    return -lr * g


@pytest.mark.parametrize(("formula", "remedy"), [
    (lambda grad: grad, "g (the gradient), x (the parameter), t (the step number from 1)"),
    (lambda g, beta: g, "a state slot needs its start (`beta=0`), a hyper-parameter stands after `*`"),
    (lambda g, *rest: g, "name every state slot"),
    (lambda g, **hyper: g, "every hyper-parameter"),
    (lambda g, m="eps": (g, m), "the name of a hyper-parameter (there is none)"),
    (lambda g, x=0: (g, x), "give the slot another name"),
    (lambda g, m=None: (g, m), "finite number"),
    (lambda self, g, *, lr=0.1: -lr * g, "write it outside the class"),
    (lambda g, *, x, lr=0.1: -lr * g * x, "`x` is the parameter and stands before `*`"),
    (lambda g, *, nesterov=False: g, "`nesterov=False` is no number, as a default must be"),
    (lambda g, *, lr=None: g, "`lr=None` is no number"),
    (lambda g, *, lr=abs: g, "schedules, trees and arrays are given to the optimizer"),
    (annotated("fl.NonNeg"), "an annotation cannot be read"),
    (annotated("NoSuchName"), "an annotation cannot be read"),
    (annotated("int"), "is its range: NonNegative, Positive, Fraction or float. Got the class int"),
    (annotated("(0, 1)"), "Got (0, 1)"),
    (fl.rules.sgd, "sgd is a rule already"),
    (fl.Adam, "A rule is a function of g"),
    (3, "A rule is a function of g, ... Got 3"),
    (generator, "no `async`, no `yield`"),
    (coroutine, "no `async`, no `yield`"),
])  # fmt: skip
def test_a_signature_that_is_no_schema_is_refused(formula, remedy):
    with pytest.raises(fl.FormulaError) as error:
        fl.rule(formula)
    assert remedy in str(error.value)


def test_an_annotation_may_be_a_range_a_float_or_their_names():
    for text in ("float", "fl.Positive", "Any"):
        assert str(fl.rule(annotated(text))) == "<rule formula(g, *, lr=0.1)>"


def test_a_shape_that_is_no_function_is_refused():
    with pytest.raises(fl.FormulaError, match=r"such as lambda shape: shape\[:1\]\. Got \(3,\)\."):
        fl.shaped(0, (3,))


def test_a_rest_that_is_no_function_is_refused():
    with pytest.raises(fl.FormulaError, match=r"its `rest` is a function of x.*\. Got 5\."):
        fl.rule(rest=5)(lambda g, *, lr=0.1: -lr * g)


def test_a_formula_that_says_something_else_each_time_is_refused():
    numbers = iter(range(100))
    with pytest.raises(fl.FormulaError, match="In an unnamed rule: the formula gives a different result each time"):
        a_rule(lambda g, lr: g * next(numbers))

    @fl.before
    def noisy(g):
        return g + np.random.default_rng().standard_normal()

    with pytest.raises(fl.FormulaError, match="In before noisy: the formula gives a different"):
        fl.chain(noisy, fl.SGD())


def test_what_a_closure_holds_is_read_once():
    factor = [2.0]
    opt = a_rule(lambda g, lr: -factor[0] * g)
    factor[0] = 3.0
    assert (one_step(opt, x=0.0), opt.update(np.array([2.0])).item()) == (-4.0, -4.0)


def test_an_error_notes_the_line_of_the_formula_where_it_arose():
    @fl.rule
    def wrong(g, m=0, *, lr=0.1):
        m = m + g
        step = m**2
        return -lr * step, m

    with pytest.raises(fl.FormulaError) as error:
        fl.Optimizer(wrong)
    line = wrong.formula.__code__.co_firstlineno + 3
    assert error.value.__notes__ == [f'  File "{__file__}", line {line}, in wrong\n    step = m**2']


def test_words_of_torch_are_refused_with_those_of_fallline():
    torch = need("torch")
    with pytest.raises(fl.FormulaError, match=r"torch's sqrt is not .* Write fallline's sqrt in its place\."):
        a_rule(lambda g, lr: torch.sqrt(g))


def test_symbols_show_their_names():
    seen = []
    a_rule(lambda g, lr: seen.append(f"{g} {g * lr}") or g)
    assert seen[0] == "<array g> <array mul>"


def test_what_takes_steps_is_an_optimizer_and_no_rule():
    for rule, shown in [(fl.rules.sgd, "sgd"), (fl.rules.sgd(lr=0.1), r"sgd\(lr=0.1\)")]:
        for word in ("step", "update"):
            with pytest.raises(AttributeError, match=rf"Make an optimizer of it: fallline.Optimizer\({shown}\)\."):
                getattr(rule, word)


def test_the_gradient_of_a_modifier_of_the_increment_is_called_d():
    with pytest.raises(fl.FormulaError, match=r"d \(the increment\)"):
        fl.after(lambda g: g)


@pytest.mark.parametrize("formula", [
    lambda g, m=0, n=0: (g, m),
    lambda g, m=0: g,
    lambda g: (g, g),
])  # fmt: skip
def test_a_wrong_number_of_returned_states_is_refused(formula):
    with pytest.raises(fl.FormulaError, match="must return the increment"):
        fl.Optimizer(fl.rule(formula))


def test_a_rate_among_the_state_slots_is_told_apart():
    with pytest.raises(fl.FormulaError, match=r"A default before `\*` makes a state slot"):
        fl.Optimizer(fl.rule(lambda g, lr=0.1: -lr * g))


@pytest.mark.parametrize(("links", "remedy"), [
    ((fl.SGD(), fl.Adam()), "Got SGD and Adam: two would apply -lr twice and climb"),
    ((), "exactly one rule. Got none: add one, such as fallline.Adam(1e-3)"),
    ((fl.clip_value(1.0),), "exactly one rule. Got none: add one, such as fallline.Adam(1e-3)"),
    (("Adam",), "Got 'Adam'. Give the thing itself, not its name."),
    ((fl.SGD(), fl.clip_value(1.0)), "must stand before the rule SGD: chain(clip_value, SGD)"),
    ((fl.weight_decay(0.1), fl.SGD()), "must stand behind the rule SGD: chain(SGD, weight_decay)"),
    ((lambda g: g, fl.SGD()), "Decorate it with fallline.rule"),
    (([fl.clip_value(1.0), fl.SGD()],), "one by one: chain(*links)"),
    ((fl.SGD(), 0.1), "Settings of rules go by name: Optimizer(my_rule, lr=0.1)"),
    ((fl.SGD(), np.ones(2)), "go to step: opt.step(params, grads)"),
])  # fmt: skip
def test_a_chain_that_is_none_is_refused_with_the_order_it_should_have(links, remedy):
    with pytest.raises(fl.FormulaError) as error:
        fl.chain(*links)
    assert remedy in str(error.value)


def test_a_hyper_parameter_without_default_is_the_chains_and_missing_if_no_rule_has_it():
    opt = fl.chain(fl.SGD(0.5), fl.weight_decay(0.1))
    assert one_step(opt, x=1.0, g=0.0) == 1 - 0.5 * 0.1
    opt.lr = 1.0
    assert one_step(opt, x=1.0, g=0.0) == 1 - 1.0 * 0.1
    with pytest.raises(TypeError, match=r"weight_decay needs lr.*Give it: weight_decay\(lr="):
        fl.chain(fl.AdaDelta(), fl.weight_decay(0.1))
    with pytest.raises(TypeError, match="needs speed"):
        fl.Optimizer(fl.rule(lambda g, *, speed: -speed * g))


def test_modifiers_do_what_their_formulas_say():
    def increment(*links):
        return fl.chain(*links).update(np.array([3.0, -0.5]), params=np.array([1.0, 2.0])).tolist()

    assert increment(fl.maximize(), fl.SGD(1.0)) == [3.0, -0.5]
    assert increment(fl.clip_value(1.0), fl.SGD(1.0)) == [-1.0, 0.5]
    assert increment(fl.l2(0.5), fl.SGD(1.0)) == [-3.5, -0.5]
    assert increment(fl.SGD(0.5), fl.weight_decay(0.5)) == [-1.5 - 0.25, 0.25 - 0.5]
    assert increment(fl.clip_value(2.0), fl.clip_value(1.0), fl.SGD(1.0)) == [-1.0, 0.5]


def test_a_modifier_may_have_state_of_its_own():
    @fl.before
    def smooth(g, m=0, *, decay: fl.Fraction = 0.5):
        m = decay * m + (1 - decay) * g
        return m, m

    opt = fl.chain(smooth, fl.Momentum(1.0, momentum=0.0))
    opt.step(np.zeros(1), np.ones(1))
    assert opt.state["m"].tolist() == [0.5]
    both = fl.chain(smooth, smooth, fl.SGD(1.0))
    both.step(np.zeros(1), np.ones(1))
    assert {k: v.item() for k, v in both.state.items()} == {"smooth.m": 0.5, "smooth2.m": 0.25}


def test_ranges_are_read_off_annotations_and_checked_at_every_border():
    @fl.rule
    def ranged(g, *, lr: fl.Positive = 1.0, share: fl.Fraction = 0.5, shift=0.0):
        return -lr * share * g + shift

    assert one_step(fl.Optimizer(ranged, shift=-3.0), g=0.0) == -2.0
    for setting, message in [({"lr": 0}, "lr of ranged must be > 0. Got 0."),
                             ({"share": 1.0}, "share of ranged must be in [0, 1). Got 1.0."),
                             ({"shift": math.inf}, "shift of ranged must be a finite number. Got inf.")]:  # fmt: skip
        with pytest.raises(ValueError, match="must be") as error:
            fl.Optimizer(ranged, **setting)
        assert str(error.value) == message
    with pytest.raises(ValueError, match="lr of bad's signature must be ≥ 0"):
        @fl.rule
        def bad(g, *, lr: fl.NonNegative = -1.0):
            return -lr * g


def test_a_name_that_optimizer_itself_has_cannot_be_a_hyper_parameter():
    with pytest.raises(fl.FormulaError, match="'step' is a name of Optimizer"):
        fl.Optimizer(fl.rule(lambda g, *, step=0.1: -step * g))


@pytest.mark.slow
def test_a_long_formula_does_not_exhaust_the_stack():
    def long(g, lr):
        total = g
        for _ in range(5000):
            total = total + g
        return -total

    assert one_step(a_rule(long), x=0.0, g=1.0) == -5001.0


def test_rules_of_a_module_travel_by_pickle_and_optimizers_with_them():
    assert pickle.loads(pickle.dumps(fl.rules.adam)) is fl.rules.adam
    chain = fl.chain(fl.clip_value(1.0), fl.Adam(0.1), fl.weight_decay(0.01))
    chain.step(np.ones(2), np.ones(2))
    assert repr(pickle.loads(pickle.dumps(chain))) == repr(chain)


@pytest.mark.parametrize(("modifier", "known"), [
    (fl.maximize, "takes no settings by position. Got 2."),
    (fl.clip_norm, "takes at most 1 setting by position (max_norm). Got 2."),
])  # fmt: skip
def test_too_many_settings_by_position_are_refused_with_those_there_are(modifier, known):
    with pytest.raises(TypeError, match=re.escape(known)):
        modifier(1.0, 2.0)


def test_a_class_says_which_state_is_a_number_and_what_of():
    assert "d: starts at d0, one number for the tree" in fl.Prodigy.__doc__
    assert "peak: starts at 0, one number for each leaf" in fl.ScheduleFreeSGD.__doc__
    assert "\nm: starts at 0\n" in fl.Prodigy.__doc__


def test_the_library_shows_its_public_names_and_not_how_it_is_made():
    for module, more in ((fl, {"abs"}), (fl.schedules, set())):  # a star leaves Python's abs alone
        assert {*module.__all__, *more} == {name for name in dir(module) if not name.startswith("__")}
    assert {"__version__", "__doc__"} <= set(dir(fl))
