"""The Optimizer: names and settings of hyper-parameters, schedules, trees, what it says of itself."""

import inspect

import numpy as np
import pytest

import fallline as fl
from needed import need

every_optimiser = pytest.mark.parametrize("cls", fl.OPTIMIZERS.values(), ids=fl.OPTIMIZERS)


@every_optimiser
def test_a_class_takes_lr_by_position_and_all_else_by_name(cls):
    parameters = inspect.signature(cls).parameters
    for name, p in parameters.items():
        assert (p.kind is p.KEYWORD_ONLY) == (name != "lr")
    if "lr" in parameters:
        assert cls(0.25).lr == 0.25
        with pytest.raises(TypeError, match=r"lr of \w+ was given twice"):
            cls(0.25, lr=0.25)
    named = [name for name in cls().hyper if name != "lr"]
    with pytest.raises(TypeError, match="by position, all else by name") as caught:
        cls(0.25, 0.5)
    assert (f"({', '.join(named)})" in str(caught.value)) == bool(named)


@every_optimiser
def test_repr_shows_every_hyper_parameter_and_can_be_typed_in_again(cls):
    opt = cls(engine="reference", nonfinite="skip")
    assert repr(eval(repr(opt), vars(fl).copy())) == repr(opt)
    assert all(f"{name}=" in repr(opt) for name in opt.hyper)
    assert "engine" not in repr(cls())


@every_optimiser
def test_the_docstring_names_hyper_parameters_source_and_state(cls):
    opt = cls()
    for name in [*opt.hyper, *opt.rule.slots]:
        assert f"\n{name}: " in cls.__doc__
    assert "Source: " in cls.__doc__


@every_optimiser
def test_unknown_names_are_refused_and_the_known_ones_listed(cls):
    known = ", ".join(cls().hyper)
    with pytest.raises(TypeError, match="'learning_rate'. Known: " + known):
        cls(learning_rate=0.1)
    opt = cls()
    with pytest.raises(AttributeError, match="'learning_rate'. Its hyper-parameters: " + known):
        opt.learning_rate = 0.1
    with pytest.raises(AttributeError, match="'learning_rate'"):
        _ = opt.learning_rate
    with pytest.raises(KeyError, match="'learning_rate'"):
        opt.hyper["learning_rate"] = 0.1


@pytest.mark.parametrize(("value", "error"), [
    (-1, "lr of Adam must be ≥ 0. Got -1."),
    (float("nan"), "lr of Adam must be ≥ 0 and finite. Got nan."),
    ("fast", "lr of Adam must be a number ≥ 0, a schedule (a function of the number of completed steps) or a tree of "
             "these. Got 'fast'."),
    (True, "lr of Adam must be a number ≥ 0, a schedule"),
    (None, "lr of Adam must be a number ≥ 0, a schedule"),
    (np.array([0.1, -0.1]), "lr of Adam must be ≥ 0. Got -0.1 among the values per coordinate."),
    ({"W": 0.1, "b": -2.0}, "lr of Adam must be ≥ 0. Got -2.0."),
])  # fmt: skip
def test_a_bad_setting_is_one_sentence_in_the_constructor_and_in_assignment(value, error):
    with pytest.raises((TypeError, ValueError)) as made:
        fl.Adam(lr=value)
    opt = fl.Adam(0.5)
    with pytest.raises((TypeError, ValueError)) as assigned:
        opt.lr = value
    assert str(made.value) == str(assigned.value)
    assert str(made.value).startswith(error)
    assert opt.lr == 0.5


@pytest.mark.parametrize("wrong", [lambda torch: torch.nn.Linear(2, 2).parameters(),
                                   lambda torch: list(torch.nn.Linear(2, 2).parameters()),
                                   lambda torch: torch.nn.Linear(2, 2)])  # fmt: skip
def test_parameters_given_to_the_constructor_are_sent_to_step(wrong):
    with pytest.raises(TypeError, match=r"pass parameters to step: opt.step\(params, grads\)"):
        fl.Adam(wrong(need("torch")))


def test_assigning_a_hyper_parameter_takes_effect_at_the_next_step():
    opt = fl.SGD(1.0)
    assert opt.step(0.0, 1.0) == -1.0
    opt.lr = 0.5
    assert opt.step(0.0, 1.0) == -0.5
    opt.hyper["sgd.lr"] = 0.25
    assert opt.step(0.0, 1.0) == opt.hyper["lr"] * -1.0 == -0.25


def test_what_only_starts_the_state_cannot_be_set_after_the_first_step():
    opt = fl.Adam()
    opt.eps = 1e-4
    opt.step(1.0, 1.0)
    with pytest.raises(ValueError, match=r"eps of Adam only says where the state starts.*reset\(\)"):
        opt.eps = 1e-3
    opt.reset()
    opt.eps = 1e-3
    assert opt.eps == 1e-3


def test_a_schedule_is_a_function_of_the_number_of_completed_steps():
    asked = []

    def halving(t):
        asked.append(t)
        return 0.5**t

    opt = fl.SGD(lr=halving)
    w = {"a": 0.0, "b": 0.0}
    for _ in range(3):
        w = opt.step(w, {"a": 1.0, "b": 1.0})
    assert w == {"a": -1.75, "b": -1.75}
    assert asked == [0, 1, 2]
    assert opt.lr is halving
    opt.t = 10
    opt.step(w, {"a": 0.0, "b": 0.0})
    assert asked[-1] == 10


def test_a_schedule_that_leaves_the_range_or_fails_changes_nothing():
    for bad, error in [(lambda t: 1.0 - t, ValueError), (lambda t: 1.0 if t == 0 else "fast", TypeError),
                       (lambda t: 1.0 if t == 0 else 1 / 0, ZeroDivisionError)]:  # fmt: skip
        opt = fl.Momentum(lr=bad)
        w = opt.step(np.ones(2), np.ones(2))
        if error is ValueError:
            opt.step(w, np.ones(2))
        before, m, t = w.copy(), opt.state["velocity"].copy(), opt.t
        with pytest.raises(error):
            opt.step(w, np.ones(2))
        assert w.tobytes() == before.tobytes()
        assert opt.state["velocity"].tobytes() == m.tobytes()
        assert opt.t == t


@pytest.mark.parametrize("lr", [
    {"body": {"W": 1.0, "b": 2.0}, "head": 3.0},
    {"body": {"W": 1.0, "b": lambda t: 2.0}, "head": 3.0},
    fl.by_path(lambda path: {"body/W": 1.0, "body/b": 2.0, "head": 3.0}[path]),
    fl.by_path(lambda path: {"body/W": np.array([1.0, 1.0]), "body/b": lambda t: 2.0, "head": 3.0}[path]),
    {"body": fl.by_path(lambda path: 1.0 if path.endswith("W") else 2.0), "head": 3.0},
])  # fmt: skip
def test_settings_as_trees_by_leaf_and_by_path(lr):
    w = {"body": {"W": np.zeros(2), "b": np.zeros(1)}, "head": np.zeros(1)}
    opt = fl.SGD(lr=lr)
    opt.step(w, {"body": {"W": np.ones(2), "b": np.ones(1)}, "head": np.ones(1)})
    assert (w["body"]["W"].tolist(), w["body"]["b"].tolist(), w["head"].tolist()) == ([-1.0, -1.0], [-2.0], [-3.0])


def test_a_setting_for_an_upper_level_holds_for_all_below():
    w = {"body": {"W": 0.0, "b": 0.0}, "head": 0.0}
    assert fl.SGD(lr={"body": 1.0, "head": 2.0}).step(w, {"body": {"W": 1.0, "b": 1.0}, "head": 1.0}) == {
        "body": {"W": -1.0, "b": -1.0}, "head": -2.0}  # fmt: skip


def test_settings_that_do_not_fit_the_parameters_are_refused_by_name():
    w, g = {"W": np.zeros(2), "b": 0.0}, {"W": np.ones(2), "b": 1.0}
    with pytest.raises(ValueError, match=r"lr of SGD must have the structure of the parameters.*\('W', 'b'\)"):
        fl.SGD(lr={"W": 1.0, "c": 1.0}).step(w, g)
    with pytest.raises(ValueError, match=r"one per coordinate, must have the shape \(2,\) of W. Got \(3,\)"):
        fl.SGD(lr={"W": np.ones(3), "b": 1.0}).step(w, g)
    with pytest.raises(TypeError, match="beta1 of Adam stands in a power, log or exp"):
        fl.Adam(beta1={"W": np.zeros(2), "b": 0.9}).step(w, g)
    with pytest.raises(ValueError, match="a single array"):
        fl.SGD(lr=[1.0, 2.0]).step(np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="lr of SGD at 'b' must be ≥ 0"):
        fl.SGD(lr=fl.by_path(lambda path: -1.0 if path == "b" else 1.0)).step(w, g)
    opt = fl.SGD(1.0)
    opt.step(w, g)
    with pytest.raises(ValueError, match="structure of the parameters"):
        opt.lr = {"W": 1.0}
    assert opt.lr == 1.0


def test_an_array_given_as_setting_is_copied():
    rates = np.array([1.0, 1.0])
    opt = fl.SGD(lr=rates)
    rates[:] = 5.0
    assert opt.step(np.zeros(2), np.ones(2)).tolist() == [-1.0, -1.0]


def test_names_in_a_chain_are_short_where_they_mean_one_thing_and_long_always():
    opt = fl.chain(fl.clip_value(1.0), fl.clip_value(2.0), fl.Adam(0.1), fl.weight_decay(0.01))
    assert dict(opt.hyper) == {"clip_value.limit": 1.0, "clip_value2.limit": 2.0, "lr": 0.1, "beta1": 0.9,
                               "beta2": 0.999, "eps": 1e-8, "rate": 0.01}  # fmt: skip
    assert opt.rate == opt.hyper["weight_decay.rate"] == 0.01
    with pytest.raises(AttributeError):
        _ = opt.limit
    opt.hyper["clip_value2.limit"] = 3.0
    assert repr(opt).startswith("chain(clip_value(limit=1.0), clip_value(limit=3.0), Adam(lr=0.1,")
    with pytest.raises(ValueError, match="rate of weight_decay must be ≥ 0"):
        opt.rate = -1


def test_a_chain_borrows_an_optimizer_and_leaves_it_alone():
    adam = fl.Adam(0.1)
    opt = fl.chain(fl.clip_value(1.0), adam)
    opt.lr = 0.2
    opt.step(1.0, 1.0)
    assert adam.lr == 0.1
    assert adam.t == 0


@every_optimiser
def test_optimizer_of_a_rule_is_the_class_with_another_name(cls):
    a, b = cls(), fl.Optimizer(cls.rule)
    w, v = np.ones(3), np.ones(3)
    for _ in range(5):
        a.step(w, np.array([1.0, -2.0, 0.0]))
        b.step(v, np.array([1.0, -2.0, 0.0]))
    assert w.tobytes() == v.tobytes()
    assert repr(b).startswith("Optimizer(")


def test_step_returns_the_very_tree_it_stepped_and_update_leaves_parameters_alone():
    w = {"W": np.ones((2, 2)), "b": [np.ones(1), np.ones(3)]}
    g = {"W": np.ones((2, 2)), "b": [np.ones(1), np.ones(3)]}
    opt = fl.SGD(1.0)
    assert opt.step(w, g) is w
    increment = opt.update(g, params=w)
    assert w["b"][1].tolist() == [0.0] * 3
    assert increment["b"][1].tolist() == [-1.0] * 3
    out = {"W": np.empty((2, 2)), "b": [np.empty(1), np.empty(3)]}
    assert opt.update(g, out=out) is out
    assert out["b"][1].tolist() == [-1.0] * 3
    assert opt.t == 3


def test_the_increment_may_be_written_over_the_gradient_if_asked_to():
    g = np.array([1.0, 2.0])
    opt = fl.SGD(0.5)
    assert opt.update(g, out=g) is g
    assert g.tolist() == [-0.5, -1.0]


def test_the_tree_that_a_setting_is_read_as_cannot_change_it_past_the_checks():
    opt = fl.SGD(lr={"W": 0.5})
    with pytest.raises(TypeError, match=r"is read-only\. Assign a whole value, opt\.lr = "):
        opt.lr["W"] = -9.0
    assert opt.step({"W": 1.0}, {"W": 1.0}) == {"W": 0.5}
    twin = opt.fresh()
    twin.lr = {"W": 1.0}
    assert opt.lr == {"W": 0.5}


def test_options_of_an_optimizer_inside_a_chain_are_refused_rather_than_dropped():
    with pytest.raises(fl.FormulaError, match=r"nonfinite='skip' of SGD is for the whole chain: give it to chain"):
        fl.chain(fl.clip_value(1.0), fl.SGD(nonfinite="skip"))


def test_links_of_one_name_are_numbered_past_names_that_are_taken():
    def scale(name):
        def formula(g, *, a=1.0):
            return g * a

        formula.__name__ = name
        return fl.before(formula)

    c, c2 = scale("c"), scale("c2")
    opt = fl.chain(c(3.0), c(5.0), c2(7.0), fl.SGD(1.0))
    assert opt.update(1.0) == -105.0
    assert dict(opt.hyper) == {"c.a": 3.0, "c3.a": 5.0, "c2.a": 7.0, "lr": 1.0}
    with pytest.raises(AttributeError, match=r'opt.hyper\["c.a"\] or opt.hyper\["c3.a"\]'):
        _ = opt.a


def test_the_first_update_cannot_know_a_leaf_without_a_gradient():
    opt = fl.SGD(1.0)
    with pytest.raises(ValueError, match=r"pass the parameters too, opt.update\(grads, params=w\)"):
        opt.update({"a": None, "b": 1.0})
    assert opt.update({"a": None, "b": 1.0}, params={"a": 1.0, "b": 1.0}) == {"a": None, "b": -1.0}
    assert opt.update({"a": 1.0, "b": 1.0}) == {"a": -1.0, "b": -1.0}


def test_an_output_may_not_lie_on_parameters_that_are_read():
    out = np.full(10, 3.0)
    opt = fl.chain(fl.l2(1.0), fl.SGD(1.0))
    for w in (out, out[::-1], np.broadcast_to(out[:1], (10,))):
        with pytest.raises(ValueError, match="a step would apply twice"):
            opt.update(np.zeros(10), params=w, out=out)
    one = np.broadcast_to(np.array([2.0]), (10,))
    assert opt.update(np.zeros(10), params=one, out=out).tolist() == [-2.0] * 10


def test_a_class_of_ones_own_may_have_any_order_of_hyper_parameters():
    @fl.rule
    def mine(g, *, gain, lr=0.5):
        return -lr * gain * g

    class Mine(fl.Optimizer):
        rule = mine

    assert list(inspect.signature(Mine).parameters)[:2] == ["lr", "gain"]
    assert Mine(0.25, gain=2.0).update(1.0) == -0.5


def test_none_in_place_of_the_parameters_or_the_gradient_is_refused():
    opt = fl.SGD()
    with pytest.raises(TypeError, match="step of SGD needs the parameters"):
        opt.step(None, None)
    with pytest.raises(TypeError, match="update of SGD needs a gradient"):
        opt.update(None)
    assert opt.t == 0


class Tagged(np.ndarray):
    """A subclass that carries something."""

    def __array_finalize__(self, obj):
        self.tag = getattr(obj, "tag", None)


def test_subclasses_of_ndarray_keep_their_type_and_what_they_carry():
    g = np.ones(3).view(Tagged)
    g.tag = "metres"
    increment = fl.SGD(1.0).update(g)
    assert type(increment) is Tagged
    assert increment.tag == "metres"
    w = np.zeros(3).view(Tagged)
    assert fl.SGD(1.0).step(w, np.ones(3)) is w
    assert np.asarray(w).tolist() == [-1.0] * 3


def test_an_interrupt_in_the_middle_of_a_step_leaves_the_optimizer_torn_until_it_is_reset():
    class Interrupting(np.ndarray):
        pass

    opt = fl.Adam(engine="eager")
    w = [np.ones(2), np.ones(2).view(Interrupting)]
    opt.step(w, [np.ones(2), np.ones(2)])
    Interrupting.__setitem__ = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        opt.step(w, [np.ones(2), np.ones(2)])
    with pytest.raises(fl.TornOptimizer, match=r"call opt.reset\(\)"):
        opt.step([np.ones(2)], [np.ones(2)])
    opt.reset()
    assert opt.step([np.ones(2)], [np.ones(2)])
