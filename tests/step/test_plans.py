"""Plans are made for what a call depends on: a number, an address or an overlap that changes makes no new one."""

import copy

import numpy as np
import pytest

import fallline as fl
from short_way import long_way
from support import run_alone, same_bits

RULES = {
    "Adam": lambda **o: fl.Adam(0.1, **o),
    "a norm": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Adam(0.1), fl.weight_decay(0.01), **o),
    "a partition": lambda **o: fl.partition({"x": fl.Adam(0.1), "y": fl.Momentum(0.1)}, dict(zip("abc", "xyy")), **o),
    "a schedule": lambda **o: fl.Adam(fl.schedules.linear(0.1, steps=9), **o),
}
every_rule = pytest.mark.parametrize("rule", RULES)


def numbers(seed):
    rng = np.random.default_rng(seed)
    return {"a": rng.standard_normal((3, 50)), "b": rng.standard_normal(70).astype(np.float32),
            "c": np.zeros((0, 2))}


def plans_of(opt):
    return list(opt._stepper.binding.plans.made.values())


@every_rule
def test_parameters_at_another_address_at_each_call_go_by_the_same_plan(rule, monkeypatch):
    opt, twin, v = RULES[rule](engine="native"), RULES[rule](engine="reference"), numbers(0)
    w = numbers(0)
    for k in range(8):
        w = {path: x.copy() for path, x in w.items()}
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            opt.step(w, numbers(k + 1))
        twin.step(v, numbers(k + 1))
        assert same_bits(w, v)
    assert len(plans_of(opt)) == 1


@pytest.mark.parametrize("rule", ["Adam", "a norm", "a schedule"])
def test_gradients_that_are_the_parameters_go_by_the_same_plan(rule, monkeypatch):
    opt, twin, w, v = RULES[rule](engine="native"), RULES[rule](engine="reference"), numbers(0), numbers(0)
    for k in range(8):
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            opt.step(w, w)
        twin.step(v, {path: x.copy() for path, x in v.items()})
        assert same_bits(w, v)
    assert len(plans_of(opt)) == 1


def test_parameters_that_moved_onto_each_other_are_refused_as_ever():
    opt, w = fl.SGD(0.1, engine="native"), numbers(0)
    for k in range(4):
        opt.step(w, numbers(k))
    whole = np.zeros(200)
    with pytest.raises(ValueError, match="overlap"):
        opt.step({"a": whole[:150].reshape(3, 50), "b": whole.view(np.float32)[100:170],
                  "c": whole[:0].reshape(0, 2)}, numbers(5))
    assert opt.t == 4
    assert not whole.any()


@every_rule
def test_a_number_that_is_assigned_makes_no_new_plan(rule):
    opt, twin, w, v = RULES[rule](engine="native"), RULES[rule](engine="reference"), numbers(0), numbers(0)
    name = next(name for name in opt.hyper if name.endswith("beta1"))
    for k in range(8):
        opt.hyper[name] = twin.hyper[name] = 0.5 + k / 20
        opt.step(w, numbers(k + 1))
        twin.step(v, numbers(k + 1))
        assert same_bits(w, v)
        if k == 0:
            (plan,) = plans_of(opt)
    assert plans_of(opt) == [plan]


NUMBERS = {"float": float, "float64": np.float64, "a 0-d array": np.array}


@pytest.mark.parametrize("whole", [lambda a, b, c: {"a": a, "b": [b, np.array([c])]}, lambda a, b, c: a])
@pytest.mark.parametrize("rule", [r for r in RULES if r != "a partition"])
@pytest.mark.parametrize("of_x", NUMBERS)
@pytest.mark.parametrize("of_g", NUMBERS)
def test_numbers_go_by_a_plan_too_and_stay_what_they_are(of_x, of_g, rule, whole, monkeypatch):
    opt, twin, kind = RULES[rule](), RULES[rule](engine="reference"), NUMBERS[of_x]
    w, v = whole(kind(1.0), kind(2.0), 3.0), whole(kind(1.0), kind(2.0), 3.0)
    for k in range(8):
        g = whole(NUMBERS[of_g](0.5 + k), NUMBERS[of_g](-1.0), 0.25 * k)
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            w = opt.step(w, g)
        v = twin.step(v, g)
        assert same_bits(w, v)
        assert type(w["a"] if isinstance(w, dict) else w) is type(kind(1.0))
    with pytest.raises(fl.NonFiniteGradient):
        opt.step(w, whole(NUMBERS[of_g](np.nan), NUMBERS[of_g](1.0), 1.0))
    assert same_bits(w, v)


def test_a_gradient_that_is_a_number_is_cast_to_the_parameters_dtype_at_every_step():
    opt, twin, w = fl.Adam(0.1), fl.Adam(0.1, engine="reference"), {"a": np.ones((), np.float32)}
    v = {"a": w["a"].copy()}
    for k in range(6):
        for g in (1.0 + k / 3, np.float32(0.1 * k), np.float64(1 / 3)):
            opt.step(w, {"a": g})
            twin.step(v, {"a": g})
            assert same_bits(w, v)
            assert w["a"].dtype == np.float32


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_arrays_that_lie_alike_in_another_order_of_the_axes_are_run_over_as_they_lie(order):
    def turned(seed):
        return np.random.default_rng(seed).standard_normal([(3, 4, 5)[j] for j in order]).transpose(np.argsort(order))

    opt, twin, w, v = fl.Adam(0.1, engine="native"), fl.Adam(0.1, engine="reference"), turned(0), turned(0).copy("C")
    for k in range(5):
        opt.step(w, turned(k + 1))
        twin.step(v, turned(k + 1).copy("C"))
        assert (w == v).all()
        assert (opt.state["m"] == twin.state["m"]).all()
    assert [m.lies for plan in plans_of(opt) for m in plan.way.members] == ["turned"]
    opt.step(w, turned(9).copy("C"))  # and if one lies otherwise, the state follows
    twin.step(v, turned(9).copy("C"))
    assert (w == v).all()


def test_a_leaf_has_no_state_in_memory_before_its_first_gradient():
    opt, w = fl.Adam(0.1), {"frozen": np.ones(1_000_000), "free": np.ones(3)}
    for _ in range(4):
        opt.step(w, {"frozen": None, "free": np.ones(3)})
    assert opt.state["m"]["frozen"].shape == (1_000_000,)
    assert opt.state["m"]["frozen"].strides == (0,)
    opt.step(w, {"frozen": np.ones(1_000_000), "free": np.ones(3)})
    one = fl.Adam(0.1)
    assert (w["frozen"] == one.step(np.ones(1), np.ones(1))).all()
    assert opt.state["v"]["frozen"].strides == (8,)


COLD = """
import sys
import numpy as np, fallline as fl
opt, w = fl.Adam(0.1), np.ones(100)
opt.step(w, np.full(100, 0.5))
assert "llvmlite" not in sys.modules
first = w.copy()
opt.step(w, np.full(100, 0.5))
assert "llvmlite" in sys.modules
twin, v = fl.Adam(0.1, engine="reference"), np.ones(100)
assert (twin.step(v, np.full(100, 0.5)) == first).all() and (twin.step(v, np.full(100, 0.5)) == w).all()
large = fl.Adam(0.1)
large.step(np.ones(10**6), np.ones(10**6))
assert large._stepper.binding.plans.made
print(opt.engine)
"""


def test_a_first_small_call_is_numpys_and_llvm_is_loaded_for_the_next():
    assert run_alone(COLD) == "native: arrays in host memory\n"


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_a_copy_does_leaves_state_of_the_original_as_it_lies(order):
    opt, twin, v = fl.Adam(0.1, engine="native"), fl.Adam(0.1, engine="reference"), numbers(0)
    w = {path: np.array(x, order="F") for path, x in numbers(0).items()}
    for k in range(8):
        g = {path: np.array(x, order="F" if k < 3 else order) for path, x in numbers(k + 1).items()}
        copy.deepcopy(opt).step(copy.deepcopy(w), numbers(k + 1))
        opt.step(w, g)
        twin.step(v, g)
        assert same_bits(w, v)
