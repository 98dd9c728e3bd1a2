"""Points beside the one that is stepped: where every optimiser rests, and what an average has come to."""

import copy
import inspect
import pickle

import ml_dtypes
import numpy as np
import pytest

import fallline as fl
from needed import need
from support import COMPLEX, NAMES, a_tree, every_engine, every_precision, frozen, normal, same_bits

RESTING = [name for name in NAMES if fl.OPTIMIZERS[name].rule.rest]


def middle(x, origin, first, bias, count, calls, *, share):
    return x + share * (origin - x) + (count + calls) * bias * first


@fl.rule(rest=middle)
def sliding(g, x, origin="x", first="g", bias="shift", count=fl.scalar(0, over="leaf"), calls=fl.scalar(0), *,
            lr: fl.NonNegative = 0.5, share: fl.Fraction = 0.25, shift=0.125):  # fmt: skip
    """A rule whose point of rest is made of everything that one may be made of."""
    return -lr * g, origin, first, bias, count + 1, calls + 1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RESTING])
@every_precision
def test_a_rule_without_a_point_of_rest_rests_where_it_is(name, dtype):
    opt, w = fl.OPTIMIZERS[name](), a_tree(0, dtype)
    for seed in range(3):
        found = opt.rest(w)
        assert same_bits(found, w)
        assert not any(np.shares_memory(found[key], w[key]) for key in w)
        opt.step(w, a_tree(seed, dtype))


@every_engine
@every_precision
def test_a_point_of_rest_may_be_made_of_the_start_the_first_gradient_numbers_and_settings(engine, dtype):
    opt, w = fl.Optimizer(sliding, engine=engine), a_tree(0, dtype)
    first = a_tree(1, dtype)
    start = copy.deepcopy(w)
    assert same_bits(opt.rest(w), w)  # no gradient yet
    for seed in (1, 2, 3):
        opt.step(w, {**a_tree(seed, dtype), "b": None})
    found = opt.rest(w)
    x, origin, g = (tree["a"].astype(complex) for tree in (w, start, first))
    bias = 0.125 + 0.125j if dtype in COMPLEX else 0.125  # a start is that of both parts
    step = float(ml_dtypes.finfo(w["a"].real.dtype).eps)
    np.testing.assert_allclose(found["a"].astype(complex), x + 0.25 * (origin - x) + 6 * bias * g,
                               rtol=4 * step, atol=8 * step)  # fmt: skip
    assert same_bits(found["b"], w["b"])
    assert {leaf.dtype for leaf in found.values()} == {dtype}


def test_the_point_of_rest_is_that_of_the_rule_in_whatever_chain_it_stands():
    @fl.after
    def named_alike(d, velocity=0, *, momentum: fl.Fraction = 0.5):
        return d, momentum * velocity + d

    chain = fl.chain(fl.clip_value(1e9), fl.Nesterov(0.1, momentum=0.75), named_alike)
    alone = fl.Nesterov(0.1, momentum=0.75)
    w, v = a_tree(0), a_tree(0)
    for seed in range(4):
        chain.step(w, a_tree(seed))
        alone.step(v, a_tree(seed))
    assert same_bits(w, v)
    assert same_bits(chain.rest(w), alone.rest(v))


def test_a_point_of_rest_follows_settings_by_leaf_and_outlives_copies_and_checkpoints(tmp_path):
    opt = fl.Optimizer(sliding, share={"a": 0.5, "b": lambda t: 0.0625 * t})
    w = a_tree(0)
    start = copy.deepcopy(w)
    for seed in range(4):
        opt.step(w, a_tree(seed))
    found = opt.rest(w)
    np.testing.assert_allclose(found["a"], (w["a"] + start["a"]) / 2 + a_tree(0)["a"])
    np.testing.assert_allclose(found["b"], 0.75 * w["b"] + 0.25 * start["b"] + a_tree(0)["b"])
    opt.share = 0.25
    found = opt.rest(w)
    opt.save(tmp_path / "file")
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), fl.load(tmp_path / "file", rules=[sliding])):
        assert same_bits(other.rest(w), found)


def test_rest_of_other_arrays_is_of_their_kind():
    torch = need("torch")
    jax = need("jax")
    for make in (torch.tensor, jax.numpy.asarray):
        opt, other = fl.Nesterov(0.25), fl.SGD(0.25)
        w = opt.step(make([1.0, 2.0]), make([1.0, -1.0]))
        assert type(opt.rest(w)) is type(w)
        assert np.asarray(opt.rest(w)).tolist() == [0.75, 2.25]
        assert np.asarray(other.rest(w)).tolist() == np.asarray(w).tolist()
        assert other.rest(w) is not w


@every_engine
@every_precision
def test_averaged_is_the_average_of_the_parameters_after_each_step_in_their_dtype(engine, dtype):
    opt, w = fl.chain(fl.Momentum(0.1), fl.average(0.75), engine=engine), a_tree(0, dtype)
    mean = {key: leaf.astype(complex) for key, leaf in w.items()}
    for seed in range(1, 6):
        opt.step(w, a_tree(seed, dtype))
        mean = {key: 0.75 * mean[key] + 0.25 * leaf for key, leaf in w.items()}
    found = opt.averaged
    for key, leaf in found.items():
        assert leaf.dtype == dtype
        assert not np.shares_memory(leaf, opt.state["a"][key])
        step = float(ml_dtypes.finfo(leaf.real.dtype).eps)
        np.testing.assert_allclose(leaf.astype(complex), mean[key], rtol=4 * step, atol=4 * step)
    kept = frozen(opt.averaged)
    for leaf in found.values():
        leaf[...] = 7
    assert frozen(opt.averaged) == kept


def test_a_leaf_that_never_had_a_gradient_has_no_average_and_an_empty_one_has():
    opt = fl.chain(fl.SGD(1.0), fl.average(0.5))
    w = {"a": np.ones(2), "b": np.ones(3), "c": np.ones((0, 2))}
    opt.step(w, {**copy.deepcopy(w), "b": None})
    found = opt.averaged
    assert found["a"].tolist() == [0.5, 0.5]
    assert found["b"] is None
    assert found["c"].shape == (0, 2)


def test_of_two_averages_the_last_is_shown():
    opt = fl.chain(fl.SGD(1.0), fl.average(0.5), fl.average(0.75))
    opt.step(np.zeros(1), -np.ones(1))
    assert opt.averaged.tolist() == [0.25]


class Labelled(np.ndarray):
    def __array_finalize__(self, other):
        self.label = getattr(other, "label", None)


def labelled(values):
    leaf = np.array(values).view(Labelled)
    leaf.label = "metres"
    return leaf


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_an_average_is_of_the_kind_of_the_parameter(engine):
    torch, jax = need("torch"), need("jax")
    kinds = {"array": np.array, "0-d": lambda values: np.array(values[0]), "float": lambda values: values[0],
             "complex": lambda values: complex(values[0]), "float32": lambda values: np.float32(values[0]),
             "subclass": labelled, "tensor": torch.tensor, "parameter": lambda v: torch.nn.Parameter(torch.tensor(v)),
             "bfloat16": lambda values: torch.tensor(values, dtype=torch.bfloat16),
             "JAX": jax.numpy.asarray}  # fmt: skip
    for name, make in kinds.items():
        opt = fl.chain(fl.SGD(1.0), fl.average(0.5), engine=engine)
        w = opt.step({name: make([0.0, 0.0])}, {name: make([1.0, 1.0])})
        assert getattr(opt.averaged[name], "label", None) == getattr(w[name], "label", None), name
        for other in (opt, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
            found = other.averaged[name]
            assert type(found) is type(opt.rest(w)[name]), name
            assert (w[name] / 2 == found).all() if np.ndim(found) else w[name] / 2 == found, name
            if not isinstance(found, (float, complex)):
                assert found.dtype == w[name].dtype, name


def test_a_torch_module_takes_its_average():
    torch = need("torch")
    model = torch.nn.Linear(2, 1).bfloat16()
    opt = fl.chain(fl.SGD(1.0), fl.average(0.5))
    w = dict(model.named_parameters())
    opt.step(w, {name: torch.ones_like(leaf) for name, leaf in w.items()})
    model.load_state_dict(opt.averaged)
    assert torch.equal(model.bias, opt.averaged["bias"])


AVERAGING = {
    "one array": (lambda: fl.chain(fl.SGD(0.5), fl.average(0.5)), lambda tree: tree["a"], lambda shown: shown),
    "a chain": (lambda: fl.chain(fl.Adam(), fl.average(0.75), fl.average(0.5)), lambda tree: tree, lambda shown: shown),
    "a mask": (lambda: fl.mask({"a": True, "b": False}, AVERAGING["a chain"][0]()), lambda tree: tree,
               lambda shown: {"a": shown["a"]}),
    "a partition": (lambda: fl.partition({"x": fl.SGD(), "y": AVERAGING["a chain"][0]()}, {"a": "x", "b": "y"}),
                    lambda tree: tree, lambda shown: shown),
}  # fmt: skip


@pytest.mark.parametrize("case", AVERAGING)
@every_precision
def test_the_average_of_a_state_that_waits_for_the_first_step_is_shown_by_leaf_path(case, dtype, tmp_path):
    make, of, known = AVERAGING[case]
    opt, w = make(), of(a_tree(0, dtype))
    fresh = make()
    fresh.load_state_dict(opt.state_dict())  # of no step
    assert not hasattr(fresh, "averaged")
    opt.step(w, of(a_tree(1, dtype)))
    opt.step(w, of(a_tree(2, dtype)))
    opt.save(tmp_path / "file", w)
    fresh.load_state_dict(opt.state_dict())
    for other in (fresh, fl.load(tmp_path / "file")[0]):
        assert same_bits(other.averaged, known(opt.averaged))
        other.averaged["b" if case == "a partition" else "a" if isinstance(w, dict) else ...][...] = 7  # a copy
        assert same_bits(other.averaged, known(opt.averaged))
        other.step(copy.deepcopy(w), of(a_tree(3, dtype)))
        assert type(other.averaged) is type(opt.averaged)
    opt.step(w, of(a_tree(3, dtype)))
    assert same_bits(other.averaged, opt.averaged)


def test_a_leaf_without_gradient_has_no_average_in_a_state_that_waits_either():
    opt, w = fl.chain(fl.SGD(1.0), fl.average(0.5)), {"a": np.ones(2), "b": np.ones(3)}
    opt.step(w, {"a": np.ones(2), "b": None})
    other = opt.fresh()
    other.load_state_dict(opt.state_dict())
    assert other.averaged["b"] is None
    assert same_bits(other.averaged["a"], opt.averaged["a"])


def test_an_average_that_there_is_not_is_an_error_that_says_what_to_do():
    assert not hasattr(fl.Adam(), "averaged")
    with pytest.raises(AttributeError, match=r"Adam keeps no average: end its chain with fallline.average\(decay\)"):
        fl.Adam().averaged  # noqa: B018
    opt = fl.chain(fl.Adam(), fl.average(0.9))
    for kind in (ValueError, AttributeError):  # so that what looks at all attributes can look at this one
        with pytest.raises(kind, match=r"chain\(Adam, average\) has averaged nothing before its first step"):
            opt.averaged  # noqa: B018
    assert "averaged" in dir(opt)
    assert "averaged" not in dict(inspect.getmembers(opt))
    with pytest.raises(AttributeError):
        opt.averaged = 1.0
    with pytest.raises(fl.FormulaError, match="'rest' is a name of Optimizer"):
        fl.Optimizer(fl.rule(lambda g, *, rest=0.1: -rest * g))


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_a_complex_average_shows_both_parts(dtype):
    opt, w = fl.chain(fl.SGD(1.0), fl.average(0.5)), np.zeros(2, dtype)
    opt.step(w, normal(np.random.default_rng(0), 2, dtype))
    np.testing.assert_array_equal(opt.averaged, w / 2)
