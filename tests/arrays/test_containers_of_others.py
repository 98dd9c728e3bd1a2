"""Mappings of any class, and what is registered with JAX: trees that are stepped as dicts, and come back as they came.

A row of the table makes a container of two things, "a" and "b". A new container joins by its row.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import types
from collections import ChainMap, Counter, UserDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import optree
import pytest
from scipy.optimize import OptimizeResult

import fallline as fl
from fallline._arrays.trees import flatten, paths
from needed import need
from support import frozen, same_bits

Pair = namedtuple("Pair", "a b")


class Attributes(dict):
    """A dict whose items are attributes too."""

    def __init__(self, *given):
        super().__init__(*given)
        self.__dict__ = self


class Own(Mapping):
    def __init__(self, items):
        self._items = dict(items)

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


CLASSES = {}  # made once, and where pickle finds them


def made(name, make):
    if name not in CLASSES:
        CLASSES[name] = globals()[name] = make(need("jax"))
        CLASSES[name].__qualname__ = CLASSES[name].__name__ = name
        CLASSES[name].__module__ = __name__
    return CLASSES[name]


def a_module(a, b):
    """One of equinox, with static fields: a function and a text."""
    equinox = need("equinox")

    def make(jax):
        class Module(equinox.Module):
            b: object
            a: object
            activation: object = equinox.field(static=True, default=abs)
            name: str = equinox.field(static=True, default="it")

            def __call__(self, x):
                return self.activation(self.a * x + self.b)

        return Module

    return made("Module", make)(a=a, b=b)


def a_record(a, b):
    """A dataclass that is registered with JAX."""
    def make(jax):
        return jax.tree_util.register_dataclass(dataclass(type("Record", (), {"__annotations__": {"a": 0, "b": 0}})))

    return made("Record", make)(a, b)


def a_struct(a, b):
    struct = need("flax.struct")

    def make(jax):
        return struct.dataclass(type("Struct", (), {"__annotations__": {"a": object, "b": object}}))

    return made("Struct", make)(a, b)


def with_a_dtype(a, b):
    """A module with an attribute that arrays have."""
    def make(jax):
        class Typed:
            dtype = "float64"

        jax.tree_util.register_pytree_with_keys(
            Typed, lambda t: ([(jax.tree_util.GetAttrKey("a"), t.a), (jax.tree_util.GetAttrKey("b"), t.b)], None),
            lambda _, children: typed(*children))
        return Typed

    kind = made("Typed", make)

    def typed(a, b):
        new = object.__new__(kind)
        new.a, new.b = a, b
        return new

    return typed(a, b)


MAPPINGS = {
    "UserDict": lambda a, b: UserDict(b=b, a=a),
    "ChainMap": lambda a, b: ChainMap({"b": b, "a": a}),
    "Counter": lambda a, b: Counter({"b": b, "a": a}),
    "mappingproxy": lambda a, b: types.MappingProxyType({"b": b, "a": a}),
    "OptimizeResult": lambda a, b: OptimizeResult(b=b, a=a),
    "Attributes": lambda a, b: Attributes({"b": b, "a": a}),
    "Own": lambda a, b: Own({"b": b, "a": a}),
    "FrozenDict": lambda a, b: need("flax").core.FrozenDict({"b": b, "a": a}),
    "State": lambda a, b: need("flax.nnx").State({"b": b, "a": a}),
}
NODES = {"Module": a_module, "Record": a_record, "Struct": a_struct, "Typed": with_a_dtype}
ALL = {**MAPPINGS, **NODES}
SORTED = ("FrozenDict", "State")  # by JAX, as jax.tree.map gives them back
every_mapping = pytest.mark.parametrize("name", MAPPINGS)
every_node = pytest.mark.parametrize("name", NODES)
every_kind = pytest.mark.parametrize("name", ALL)
OPTIMIZERS = {
    "Adam": lambda **o: fl.Adam(0.1, **o),
    "a norm": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Adam(0.1), fl.weight_decay(0.1), **o),
    "parts": lambda **o: fl.partition({"x": fl.Momentum(0.1), "y": fl.SGD(0.5)}, lambda path: "xy"[path == "a"], **o),
}


def numbers(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((3, 2)).astype(np.float32), rng.standard_normal(4).astype(np.float32)


def in_numpy(array):
    return np.array(array)


def in_jax(array):
    return need("jax.numpy").asarray(array)


def pair(tree):
    return tuple(tree[key] if isinstance(tree, Mapping) else getattr(tree, key) for key in "ab")


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in flatten(tree)[0]]


def as_dict(tree):
    return dict(zip("ab", map(np.asarray, pair(tree))))


@every_kind
@pytest.mark.parametrize("opt", OPTIMIZERS)
@pytest.mark.parametrize("array", [in_numpy, in_jax])
def test_a_container_of_any_class_is_stepped_as_a_dict_is_and_comes_back_as_it_came(name, opt, array):
    make = OPTIMIZERS[opt]
    ours, theirs, updating, alike = make(), make(), make(), make()
    w, d = ALL[name](*map(array, numbers())), dict(zip("ab", map(array, numbers())))
    for seed in range(1, 4):
        g = tuple(map(array, numbers(seed)))
        increment, wanted = updating.update(ALL[name](*g), params=w), alike.update({"a": g[0], "b": g[1]}, params=d)
        before = w
        w, d = ours.step(w, ALL[name](*g)), theirs.step(d, {"b": g[1], "a": g[0]})
        assert type(w) is type(increment) is type(before)
        assert (w is before) is (array is in_numpy)
        exact = (array is in_numpy and opt != "a norm") or name in MAPPINGS  # a norm is summed in the order of fields
        for found, known in ((w, d), (increment, wanted)):
            for key, value in as_dict(found).items():
                np.testing.assert_allclose(value, np.asarray(known[key]), rtol=0 if exact else 1e-6)
    if isinstance(w, Mapping):
        in_order = sorted if name in SORTED and array is in_jax else list
        assert list(w) == in_order(ALL[name](0, 0))


@every_kind
def test_its_state_is_a_tree_like_it_and_goes_on_wherever_it_is_carried(name, path):
    def make(seed):
        return ALL[name](*map(in_numpy, numbers(seed)))

    opt, w = fl.Adam(0.1), make(0)
    opt.step(w, make(1))
    assert type(opt.state["m"]) is type(w)
    assert same_bits(as_dict(opt.state["m"]), {k: opt.state_dict()["state"]["m"][k] for k in "ab"})
    opt.save(path)
    twins = [fl.load(path), fl.Adam(0.1), copy.deepcopy(opt), opt.fresh()]
    twins[1].load_state_dict(opt.state_dict())
    twins[3].step(make(5), make(6))  # has leaves already
    twins[3].load_state_dict(opt.state_dict())
    if name != "mappingproxy":  # which pickle refuses
        twins.append(pickle.loads(pickle.dumps(opt)))
    plain = fl.Adam(0.1)
    plain.load_state_dict(opt.state_dict())
    starts = [copy.deepcopy(as_dict(w)) for _ in twins]
    opt.step(w, make(2))
    for twin, start in zip(twins, starts):
        again = ALL[name](start["a"], start["b"])
        assert twin.step(again, make(2)) is again
        assert same_bits(as_dict(again), as_dict(w))
    g = as_dict(make(2))
    start = as_dict(make(0))
    fl.Adam(0.1).step(start, as_dict(make(1)))
    plain.step(start, g)  # a state is of leaves by name, whatever holds them
    assert same_bits(start, as_dict(w))


@every_kind
def test_settings_labels_and_bounds_may_be_such_trees_too(name):
    def values(opt):
        return {key: value.tolist() for key, value in as_dict(opt.step(of(np.ones(1), np.ones(2)), g)).items()}

    of = ALL[name]
    g = of(np.ones(1), np.ones(2))
    assert values(fl.SGD(of(0.5, 0.25))) == {"a": [0.5], "b": [0.75] * 2}
    assert values(fl.SGD(of(0.5, lambda t: 0.25))) == {"a": [0.5], "b": [0.75] * 2}
    assert values(fl.SGD(fl.by_path(lambda path: {"a": 0.5, "b": 0.25}[path]))) == {"a": [0.5], "b": [0.75] * 2}
    assert values(fl.partition({"x": fl.SGD(0.5), "y": fl.SGD(1.0)}, of("x", "y"))) == {"a": [0.5], "b": [0.0] * 2}
    assert values(fl.mask(of(False, True), fl.SGD(1.0))) == {"a": [1.0], "b": [0.0] * 2}
    for bounds in (of((0.75, 2.0), (0.0, 0.5)), *[{"a": (0.75, 2.0), "b": (0.0, 0.5)}] * (name in MAPPINGS)):
        run = fl.descend(lambda w: (0.0, g), of(np.ones(1), np.ones(2)), fl.SGD(0.5), steps=1, bounds=bounds,
                         progress=False)
        assert {key: value.tolist() for key, value in as_dict(run.params).items()} == {"a": [0.75], "b": [0.0] * 2}
    opt = fl.SGD(of(0.5, 0.25))
    opt.step(of(np.ones(1), np.ones(2)), g)
    with pytest.raises(ValueError, match=r"lr of SGD must be ≥ 0. Got -1.0. It stands at 'b'"):
        opt.lr = of(0.5, -1.0)
    assert as_dict(opt.lr) == {"a": 0.5, "b": 0.25}


def test_settings_that_are_handed_out_do_not_lead_into_the_optimizer():
    for make in ALL.values():
        given = make(0.5, 0.25)
        opt = fl.SGD(given)
        for tree in (given, opt.lr):
            try:
                tree["a"] = 7.0
            except (TypeError, ValueError):
                try:
                    tree.a = 7.0
                except AttributeError:  # as it is frozen
                    continue
        w = make(np.ones(1), np.ones(1))
        assert as_dict(opt.step(w, make(np.ones(1), np.ones(1))))["a"].tolist() == [0.5]


def test_a_module_that_is_called_for_a_rate_is_a_schedule_unless_it_is_shaped_like_the_parameters():
    schedule = a_module(0.25, 0.5)  # 0.25 t + 0.5
    for lr in (schedule, {"x": schedule, "y": schedule}):
        opt, w = fl.SGD(lr), {"x": np.zeros(1), "y": [np.zeros(1)]}
        for _ in range(3):
            opt.step(w, {"x": np.ones(1), "y": [np.ones(1)]})
        assert w == {"x": -2.25, "y": [-2.25]}
    assert fl.SGD(schedule).step(0.0, 1.0) == -0.5
    for lr in (schedule, {"x": schedule, "y": schedule}):
        x = a_module(np.zeros(1), np.zeros(1))
        w = x if lr is schedule else {"x": x, "y": 0.0}
        opt = fl.SGD(lr)
        for _ in range(2):
            w = opt.step(w, flatten(w)[1].unflatten([np.ones(1), np.ones(1), 1.0][: len(flatten(w)[0])]))
        x = w if lr is schedule else w["x"]
        assert (x.a.tolist(), x.b.tolist()) == ([-0.5], [-1.0])
        assert lr is schedule or w["y"] == -1.25
    jax = need("jax")
    assert fl.SGD(jax.tree_util.Partial(lambda t: 0.5)).step(0.0, 1.0) == -0.5
    with pytest.raises(TypeError, match="lr of SGD, a schedule, must be a function of one argument"):
        fl.SGD(jax.tree_util.Partial(lambda t, more: 0.5)).step(0.0, 1.0)


@every_mapping
def test_mappings_of_the_same_keys_are_alike_whatever_their_class(name):
    of = MAPPINGS[name]
    for first, second in ((of, lambda a, b: {"a": a, "b": b}), (lambda a, b: {"a": a, "b": b}, of),
                          (of, lambda a, b: UserDict(a=a, b=b))):  # fmt: skip
        opt = fl.SGD({"x": [second(0.5, 0.25)]})
        w = {"x": [first(np.ones(1), np.ones(2))]}
        for _ in range(3):
            assert opt.step(w, {"x": [second(np.ones(1), np.ones(2))]}) is w
        assert [value.tolist() for value in pair(w["x"][0])] == [[-0.5], [0.25] * 2]
        with pytest.raises(ValueError, match=r"grads .*: missing 'x/0/b'; unexpected 'x/0/c'"):
            opt.step(w, {"x": [{"a": np.ones(1), "c": np.ones(2)}]})
        assert opt.t == 3


@every_kind
def test_where_such_a_tree_differs_is_named_and_nothing_is_changed(name):
    of = ALL[name]
    for steps in (0, 1):
        opt, w = fl.Momentum(0.1), {"x": of(np.ones(1), [np.ones(2)])}
        for _ in range(steps):
            opt.step(w, {"x": of(np.ones(1), [np.ones(2)])})
        before = bits(w), frozen(opt.state_dict())
        for wrong, said in ((of(np.ones(1), (np.ones(2),)), "'x/b' must be a list, not a tuple"),
                            (of(np.ones(1), [np.ones(2), np.ones(2)]), "unexpected 'x/b/1'"),
                            ([np.ones(1), np.ones(1)], f"'x' must be an? {type(w['x']).__name__}, not a list"),
                            (np.ones(1), f"'x' must be an? {type(w['x']).__name__}, not an ndarray")):
            with pytest.raises(ValueError, match=f"grads must be a tree of the same structure .*{said}"):
                opt.step(w, {"x": wrong})
        with pytest.raises(ValueError, match=r"gradient 'x/b/0' must have the shape \(2,\). Got \(3,\)"):
            opt.step(w, {"x": of(np.ones(1), [np.ones(3)])})
        with pytest.raises(TypeError, match=r"gradient 'x/a' must be .* Got 'text' \(str\)|gradient 'x/a' .* Got str"):
            opt.step(w, {"x": of("text", [np.ones(2)])})
        with pytest.raises(fl.NonFiniteGradient, match="x/b/0 has 1 NaN"):
            opt.step(w, {"x": of(np.ones(1), [np.array([1.0, np.nan])])})
        assert (bits(w), frozen(opt.state_dict())) == before


def test_static_fields_that_differ_are_named():
    equinox = need("equinox")
    w = {"x": a_module(np.ones(1), np.ones(1))}
    other = type(w["x"])(np.ones(1), np.ones(1), name="other")
    with pytest.raises(ValueError, match=r"grads .*: 'x' must be a Module with the same static fields"):
        fl.SGD().step(w, {"x": other})
    assert isinstance(w["x"], equinox.Module)


@every_mapping
def test_a_file_holds_a_mapping_of_any_class_as_a_dict(name, path):
    w = {"x": [MAPPINGS[name](np.ones(1), np.zeros(2))]}
    opt = fl.Adam(0.1)
    opt.step(w, w)
    opt.save(path, w)
    again, params = fl.load(path)
    assert type(params["x"][0]) is dict
    assert list(params["x"][0]) == list(w["x"][0])
    again.step(params, {"x": [MAPPINGS[name](np.ones(1), np.ones(2))]})
    opt.step(w, {"x": [MAPPINGS[name](np.ones(1), np.ones(2))]})
    assert same_bits(params["x"][0], as_dict(w["x"][0]))


@pytest.mark.parametrize("name", [*NODES, "Pair"])
def test_a_file_holds_other_containers_as_leaves_by_path_in_the_order_of_jax(name, path):
    jax = need("jax")
    make = {**NODES, "Pair": Pair}[name]
    w, g = ({"x": make(np.ones(1), np.zeros(2)), "a": [np.ones(3)]} for _ in range(2))
    for made in (lambda: fl.Adam(0.1), lambda: fl.partition({"p": fl.Adam(0.1), "q": fl.SGD()}, {"x": "p", "a": "q"})):
        opt = made()
        opt.step(w, g)
        opt.save(path, w)
        again, leaves = fl.load(path)
        assert {*leaves} == ({"x/0", "x/1", "a/0"} if name == "Pair" else {"x/a", "x/b", "a/0"})
        params = jax.tree.unflatten(jax.tree.structure(w), leaves.values())
        assert again.step(params, g) is params
        opt.step(w, g)
        assert bits(params) == bits(w)
    opt = fl.SGD(make(0.5, 0.25))
    if callable(opt.lr):  # it goes by its name, as functions do
        opt.save(path)
        with pytest.raises(fl.CheckpointError, match="Functions cannot be saved: give it again"):
            fl.load(path)
        assert fl.load(path, lr=make(0.5, 0.25)).step(make(np.ones(1), np.ones(1)), make(np.ones(1), np.ones(1)))
    else:
        with pytest.raises(TypeError, match=r"sgd.lr must be made of dicts .*: give it by path, fallline.by_path"):
            opt.save(path)
    with pytest.raises(TypeError, match=r"label must be made of dicts .*: give a function of the path"):
        fl.partition({"p": fl.SGD()}, make("p", "p")).save(path)


@every_kind
def test_other_points_are_such_trees_and_states_go_to_other_libraries_and_back(name):
    def make(seed):
        return ALL[name](*map(in_numpy, numbers(seed)))

    def points(opt, w):
        return [opt.rest(w), *(getattr(opt, what)(w) for what in ("lookahead",) if hasattr(opt, what)),
                *([opt.averaged] if hasattr(opt, "averaged") else [])]

    for opt in (fl.Nesterov(0.1), fl.ScheduleFreeSGD(0.1), fl.chain(fl.Adam(0.1), fl.average(0.9)), fl.Momentum(0.1)):
        w, d, other = make(0), as_dict(make(0)), opt.fresh()
        opt.step(w, make(1))
        other.step(d, as_dict(make(1)))
        found = points(opt, w)
        assert {type(tree) for tree in found} == {type(w)}
        assert frozen([as_dict(tree) for tree in found]) == frozen(points(other, d))
    need("torch")
    opt, again = fl.dialects.torch.Adam(0.1), fl.dialects.torch.Adam(0.1)
    opt.step(make(0), make(1))
    again.step(make(2), make(3))
    again.load_state_dict(opt.state_dict(dialect="torch"), dialect="torch")
    assert frozen(again.state_dict()["state"]) == frozen(opt.state_dict()["state"])


@every_kind
def test_a_run_in_a_file_goes_on_with_such_parameters(name, path):
    def run(steps, **more):
        w = {"x": ALL[name](np.full(3, 2.0), Pair(np.ones(2), np.ones(1)))}

        def slope(w):
            return float(sum((x * x).sum() for x in flatten(w)[0])), flatten(w)[1].unflatten(
                [2 * x for x in flatten(w)[0]])

        return fl.descend(slope, w, fl.Adam(0.1), steps=steps, progress=False, **more)

    run(3, checkpoint=path)
    there, whole = run(7, checkpoint=path), run(7)
    assert list(there.values) == list(whole.values)
    assert type(there.params["x"]) is type(whole.params["x"]) is type(ALL[name](0, 0))
    assert bits(there.params) == bits(whole.params)


@every_kind
def test_minimize_takes_such_a_tree_and_gives_one(name):
    x0 = {"x": ALL[name](np.full(2, 3.0), 1)}
    found = fl.minimize(lambda w: float((pair(w["x"])[0] ** 2).sum() + (pair(w["x"])[1] ** 2).sum()), x0,
                        jac=lambda w: {"x": ALL[name](2 * pair(w["x"])[0], 2 * pair(w["x"])[1])},
                        bounds={"x": ALL[name]((0.5, 4.0), (None, None))}, method=fl.Momentum(0.1))
    assert type(found.x["x"]) is type(x0["x"])
    assert as_dict(found.x["x"])["a"].tolist() == [0.5, 0.5]
    assert abs(as_dict(found.x["x"])["b"].item()) < 1e-4


def test_containers_of_all_kinds_stand_within_each_other():
    made = list(ALL.values())

    def build(leaf):
        tree = leaf()
        for make in made:
            tree = make(leaf(), [tree])
        return {"top": (tree, None)}

    w, opt = build(lambda: np.ones(2)), fl.chain(fl.clip_norm(100.0), fl.SGD(0.5))
    leaves, treedef = flatten(w)
    assert len(leaves) == len(made) + 1
    deepest = "top/0/" + "b/0/" * len(made)
    assert deepest.rstrip("/") in paths(treedef)
    assert opt.step(w, build(lambda: np.ones(2))) is w
    assert all(leaf.tolist() == [0.5, 0.5] for leaf in leaves)
    assert optree.tree_structure(treedef.unflatten(leaves)) == optree.tree_structure(w)


# ---- as the libraries give them --------------------------------------------------------------------------------------


def test_a_module_of_equinox_trains_by_the_gradients_of_filter_grad():
    jax, equinox = need("jax"), need("equinox")
    model = equinox.nn.MLP(2, "scalar", 8, 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (64, 2))

    @equinox.filter_value_and_grad
    def loss(model):
        return ((jax.vmap(model)(x) - x[:, 0] * x[:, 1]) ** 2).mean()

    opt, values = fl.Adam(0.02), []
    params, static = equinox.partition(model, equinox.is_inexact_array)
    for _ in range(60):
        value, grads = loss(equinox.combine(params, static))
        values.append(float(value))
        params = opt.step(params, grads)  # None stands for functions in both
    assert values[-1] < 0.3 * values[0]
    assert jax.tree.structure(params) == jax.tree.structure(grads)
    assert [*opt.state_dict()["leaves"]][:2] == ["layers/0/weight", "layers/0/bias"]
    with pytest.raises(TypeError, match=r"parameter 'activation' must be .*: pass equinox.filter\(model, equi"):
        fl.Adam().step(model, grads)
    with pytest.raises(TypeError, match=r"lr of Adam must be .* Got MLP: pass parameters to step"):
        fl.Adam(model)


def test_the_state_of_a_flax_module_trains_by_the_gradients_of_nnx():
    jax, nnx = need("jax"), need("flax.nnx")
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (64, 2))
    graph, params = nnx.split(model, nnx.Param)

    def loss(params):
        return ((nnx.merge(graph, params)(x)[:, 0] - x @ jax.numpy.array([1.0, -2.0])) ** 2).mean()

    opt, kind = fl.Adam(0.1), type(params)
    for _ in range(200):
        params = opt.step(params, jax.grad(loss)(params))
    assert type(params) is type(opt.state["m"]) is kind
    assert float(loss(params)) < 1e-3
    saved = opt.state_dict()
    assert {*saved["leaves"]} == {"bias", "kernel"}
    leaves, m, v = ({f"{path}/value": own for path, own in tree.items()} for tree in
                    (saved["leaves"], saved["state"]["m"], saved["state"]["v"]))  # as older files have them
    opt.load_state_dict({**saved, "leaves": leaves, "state": {"m": m, "v": v}})
    assert {*opt.state_dict()["leaves"]} == {"bias", "kernel"}
    whole = fl.SGD(0.1).step(model, jax.grad(lambda m: (m(x) ** 2).mean())(model))
    assert type(whole) is nnx.Linear
    assert not np.array_equal(whole.kernel[...], model.kernel[...])


def test_jax_and_optree_are_left_as_they_are():
    """Classes are known in the library alone, and none is imported for them."""
    code = ("import sys, optree, fallline as fl; from collections import UserDict; w = UserDict(a=1.0); "
            "assert fl.SGD(0.5).step(w, w) == UserDict(a=0.5); assert optree.tree_leaves(w) == [w]; "
            "assert not {'jax', 'flax', 'equinox'} & {*sys.modules}")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_registered_with_jax_later_is_known_from_then_on():
    jax = need("jax")

    class Late:
        def __init__(self, a):
            self.a = a

    w = {"x": Late(np.ones(1))}
    with pytest.raises(TypeError, match="parameter 'x' must be an array"):
        fl.SGD().step(w, w)
    jax.tree_util.register_pytree_node(Late, lambda t: ((t.a,), None), lambda _, children: Late(*children))
    assert fl.SGD(0.5).step(w, {"x": Late(np.ones(1))}) is w
    assert w["x"].a.tolist() == [0.5]
