"""A run begun in a library goes on here, and back, leaf by leaf by name; and from one library to another."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
from reliability.dialects import cases, settings

import fallline as fl
from fallline.dialects import every
from needed import need

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras
NEEDS = {"torch": ["torch"], "keras": ["torch", "keras"], "optax": ["jax", "optax"]}
SHAPES = {"w": (3, 2), "b": (4,), "a": (2,)}  # whose order is not that of the alphabet
MATRICES = {"w": (3, 2), "b": (4, 1), "a": (2, 2)}
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
MOVED = [case for case in cases() if case.library in NEEDS]


def tree(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


class Torch:
    def __init__(self, name, given, params):
        torch = need("torch")
        self.params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in params.items()}
        self.optimizer = getattr(torch.optim, name)(self.params.items(), **given)

    def step(self, grads):
        for name, parameter in self.params.items():
            parameter.grad = need("torch").tensor(grads[name])
        self.optimizer.step()

    def arrays(self):
        return {name: parameter.detach().numpy().copy() for name, parameter in self.params.items()}

    def state(self):
        return copy.deepcopy(self.optimizer.state_dict())

    def load(self, state):
        self.optimizer.load_state_dict(state)


class Keras:
    def __init__(self, name, given, params):
        keras = need("keras")
        keras.config.set_floatx("float64")
        self.params = {k: keras.Variable(v, dtype="float64", name=k) for k, v in params.items()}
        self.optimizer = getattr(keras.optimizers, name)(**given)
        self.optimizer.build(list(self.params.values()))

    def step(self, grads):
        tensors = [need("keras").ops.convert_to_tensor(grads[name], dtype="float64") for name in self.params]
        self.optimizer.apply(tensors, list(self.params.values()))

    def arrays(self):
        return {name: variable.value.detach().numpy().copy() for name, variable in self.params.items()}

    def state(self):
        return {v.path: np.array(v.value.detach().numpy()) for v in self.optimizer.variables}

    def load(self, state):
        for v in self.optimizer.variables:
            v.assign(state.get(v.path.rpartition("/")[2], state.get("u_product")))


class Optax:
    def __init__(self, name, given, params):
        self.jax, self.optax = need("jax"), need("optax")
        with self.jax.enable_x64(True):
            self.transform = getattr(self.optax, name)(**given)
            self.params = {k: self.jax.numpy.asarray(v) for k, v in params.items()}
            self.now = self.transform.init(self.params)

    def step(self, grads):
        with self.jax.enable_x64(True):
            grads = {k: self.jax.numpy.asarray(g) for k, g in grads.items()}
            increments, self.now = self.transform.update(grads, self.now, self.params)
            self.params = self.optax.apply_updates(self.params, increments)

    def arrays(self):
        return {name: np.array(array) for name, array in self.params.items()}

    def state(self):
        return self.now

    def load(self, state):
        with self.jax.enable_x64(True):
            self.now = self.optax.tree.set(self.now, **state)


RUNS = {"torch": Torch, "keras": Keras, "optax": Optax}


def need_libraries(*libraries):
    for library in libraries:
        for module in NEEDS[library]:
            need(module)


def apart(run, other):
    there = other.arrays()
    return max(abs(array - there[name]).max() for name, array in run.arrays().items())


@pytest.mark.parametrize("case", MOVED, ids=str)
def test_a_run_goes_on_here_and_back(case, monkeypatch):
    need_libraries(case.library)
    if case.name == "Muon":  # which torch computes in bfloat16
        monkeypatch.setattr(need("torch").Tensor, "bfloat16", lambda tensor: tensor.clone())
    given = {k: v for k, v in settings(case).items() if k not in CLIPS}
    of = partial(tree, shapes=MATRICES if case.name == "Muon" else SHAPES)
    there = RUNS[case.library](case.name, given, of(0))
    for seed in range(1, 6):
        there.step(of(seed))
    ours, w = case.cls(**given), there.arrays()
    if case.name == "Adafactor":  # whose state does not show the shapes of leaves
        ours.adapt(w)
    ours.load_state_dict(there.state(), dialect=case.library)
    for seed in range(6, 10):
        w = ours.step(w, of(seed))
    back = RUNS[case.library](case.name, given, w)
    back.load(ours.state_dict(dialect=case.library))
    for seed in range(10, 14):
        back.step(of(seed))
    for seed in range(6, 14):
        there.step(of(seed))
    assert apart(there, back) <= max(1e-10, case.farther[0])


PAIRS = [
    ("torch.Adam", {"lr": 0.05, "betas": (0.8, 0.99)}, "optax.adam", {"learning_rate": 0.05, "b1": 0.8, "b2": 0.99}),
    ("torch.AdamW", {"weight_decay": 0.1}, "optax.adamw", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    ("torch.SGD", {"lr": 0.1, "momentum": 0.9}, "optax.sgd", {"learning_rate": 0.1, "momentum": 0.9}),
    ("torch.SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True},
     "optax.sgd", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("torch.Adamax", {"lr": 0.05}, "optax.adamax", {"learning_rate": 0.05}),
    ("torch.Adadelta", {"eps": 1e-7}, "keras.Adadelta", {"learning_rate": 1.0, "rho": 0.9}),
    ("torch.Adadelta", {}, "optax.adadelta", {"learning_rate": 1.0}),
    ("torch.RMSprop", {"alpha": 0.9}, "optax.rmsprop", {"learning_rate": 0.01, "eps_in_sqrt": False}),
    ("keras.RMSprop", {"momentum": 0.5, "epsilon": 1e-8}, "optax.rmsprop", {"learning_rate": 0.001, "momentum": 0.5}),
    ("keras.Adagrad", {}, "optax.adagrad", {"learning_rate": 0.001}),
    ("keras.Lion", {}, "optax.lion", {"learning_rate": 0.001, "weight_decay": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "its", "other", "others"), [
    pytest.param(*way, id=f"{way[0]} to {way[2]}") for pair in PAIRS for way in (pair, (*pair[2:], *pair[:2]))])
def test_a_run_goes_on_in_another_library(one, its, other, others):
    (library, name), (to, called) = one.split("."), other.split(".")
    need_libraries(library, to)
    there = RUNS[library](name, its, tree(0))
    for seed in range(1, 6):
        there.step(tree(seed))
    ours = every()[f"dialects.{other}"](**others)
    w = {name: there.arrays()[name] for name in SHAPES}  # in whose order torch has them
    ours.adapt(w)
    ours.load_state_dict(there.state(), dialect=library)
    back = RUNS[to](called, others, w)
    back.load(ours.state_dict(dialect=to))
    for seed in range(6, 12):
        there.step(tree(seed))
        back.step(tree(seed))
    assert apart(there, back) <= 1e-10


UNTOLD = {"optax": {"adam", "adamw", "adamax", "adamaxw", "nadam", "nadamw", "radam", "lamb", "yogi"},  # by state
          "keras": {"Adam", "AdamW"}}  # whose decay is a setting
FLAGS = {"nesterov", "eps_in_sqrt", "learning_rate_power"}  # which only torch's state tells


def is_told(one, other):
    """Whether the state of one says that it is not of the other."""
    if one.library == "torch":
        return True
    if one.name == other.name:
        return not ({*(one.flags or {})} ^ {*(other.flags or {})}) & FLAGS
    return not {one.name, other.name} <= UNTOLD.get(one.library, set())


@pytest.mark.parametrize("one", MOVED, ids=str)
def test_a_state_is_taken_by_what_goes_on_alike_and_by_nothing_else(one, monkeypatch):
    need_libraries(one.library)
    monkeypatch.setattr(need("torch").Tensor, "bfloat16", lambda tensor: tensor.clone())
    of = partial(tree, shapes=MATRICES)
    its = {k: v for k, v in settings(one).items() if k not in CLIPS}
    there = RUNS[one.library](one.name, its, of(0))
    for seed in range(1, 4):
        there.step(of(seed))
    state, begun = there.state(), there.arrays()
    for seed in range(4, 7):
        there.step(of(seed))
    for other in (case for case in MOVED if case.library == one.library and is_told(one, case)):
        own = settings(other) if one.library == "torch" else other.flags or {}
        same = its if one.library != "torch" else {}  # which go along in torch's state alone
        given = {**{k: v for k, v in same.items() if k in other.cls.arguments.parameters and k != "nesterov"}, **own}
        ours = other.cls(**{k: v for k, v in given.items() if k not in CLIPS})
        ours.adapt(begun)
        try:
            ours.load_state_dict(state, dialect=one.library)
        except ValueError:
            assert str(other) != str(one)
            continue
        w = copy.deepcopy(begun)  # which is stepped where it lies
        for seed in range(4, 7):
            w = ours.step(w, of(seed))
        assert max(abs(w[name] - leaf).max() for name, leaf in there.arrays().items()) <= max(1e-10, one.farther[0]), (
            f"the state of {one} was taken by {other}")


def test_settings_of_the_same_library_go_along():
    need_libraries("torch")
    there = Torch("Adam", {"lr": 0.5, "betas": (0.7, 0.8), "weight_decay": 0.25}, tree(0))
    there.step(tree(1))
    ours = fl.dialects.torch.Adam(weight_decay=0.1)
    ours.load_state_dict(there.state(), dialect="torch")
    assert repr(ours) == "dialects.torch.Adam(lr=0.5, betas=(0.7, 0.8), eps=1e-08, weight_decay=0.25)"
    assert ours.t == 1


def test_a_leaf_without_gradients_begins_when_it_has_one():
    torch = need("torch")
    there = Torch("Adam", {}, tree(0))
    for name, g in tree(1).items():
        there.params[name].grad = None if name == "b" else torch.tensor(g)
    there.optimizer.step()
    ours = fl.dialects.torch.Adam()
    with pytest.raises(ValueError, match=r"shape of 'b' is not known: call opt.adapt\(params\)"):
        ours.load_state_dict(there.state(), dialect="torch")
    ours.adapt(there.arrays())
    ours.load_state_dict(there.state(), dialect="torch")
    w = ours.step(there.arrays(), tree(2))
    there.step(tree(2))
    assert max(abs(w[k] - v).max() for k, v in there.arrays().items()) <= 1e-15
    assert {k: v["step"].item() for k, v in ours.state_dict(dialect="torch")["state"].items()} == {0: 2, 1: 1, 2: 2}


@pytest.mark.parametrize(("call", "said"), [
    (lambda torch: fl.dialects.keras.Adam().load_state_dict(torch, dialect="torch"),
     "dialects.keras.Adam cannot be torch's: torch has no formula that is keras_adam"),
    (lambda torch: fl.Adam().load_state_dict(torch, dialect="torch"), "torch has no formula that is adam"),
    (lambda torch: fl.dialects.optax.adam(0.1, eps_root=1e-8).load_state_dict(torch, dialect="torch"),
     "whose formula has no eps_root: it must be 0"),
    (lambda torch: fl.dialects.torch.NAdam().load_state_dict({}, dialect="keras"),
     "whose formula has no momentum_decay: it must be 1"),
    (lambda torch: fl.dialects.torch.Adam(amsgrad=True).load_state_dict(torch, dialect="torch"),
     r"The state is of .*Adam\(.*, but .*Adam\(.*, amsgrad=True\) has another formula"),
    (lambda torch: fl.dialects.torch.Adam().load_state_dict(torch, dialect="jax"), "one of 'torch', 'keras', 'optax'"),
    (lambda torch: fl.dialects.torch.Adam().load_state_dict({}, dialect="torch"), "dict with state and param_groups"),
    (lambda torch: fl.dialects.keras.Adam().load_state_dict({}, dialect="keras"), "arrays of optimizer.variables"),
    (lambda torch: fl.dialects.optax.adam(0.1).load_state_dict((), dialect="optax"),
     "it has nothing, and here is ScaleByAdamState"),
    (lambda torch: fl.SGD().state_dict(dialect="torch"), "SGD is not in fallline.dialects.torch: make one of these"),
    (lambda torch: fl.partition({"a": fl.SGD()}, lambda path: "a").state_dict(dialect="torch"),
     "has parts, which no other library has"),
    (lambda torch: fl.chain(fl.dialects.torch.Adam(), fl.average()).load_state_dict(torch, dialect="torch"),
     "torch has no formula that is average"),
    (lambda torch: fl.dialects.torch.Adam().load_state_dict({**torch, "param_groups": [
        {k: v for k, v in torch["param_groups"][0].items() if k != "param_names"}]}, dialect="torch"),
     "no parameter names, so its 3 parameters"),
])  # fmt: skip
def test_what_cannot_be_moved_is_refused_by_name(call, said):
    need_libraries("torch")
    there = Torch("Adam", {}, tree(0))
    there.step(tree(1))
    with pytest.raises(ValueError, match=said):
        call(there.state())


@pytest.mark.parametrize(("ours", "said"), [
    (lambda: fl.dialects.torch.Adafactor(), r"The shape of 'b' is not known: call opt.adapt\(params\)"),
    (lambda: fl.dialects.torch.Adafactor(eps=(1e-3, 1e-3)),
     r"state is of dialects.torch.Adafactor\(.*eps=\(None, 0.001\).*another formula"),
])  # fmt: skip
def test_state_of_rows_and_columns_needs_the_shapes_and_the_formula(ours, said):
    need_libraries("torch")
    there = Torch("Adafactor", {}, tree(0))
    there.step(tree(1))
    with pytest.raises(ValueError, match=said):
        ours().load_state_dict(there.state(), dialect="torch")


def test_what_is_refused_changes_nothing():
    need_libraries("torch")
    there = Torch("Adam", {}, tree(0))
    there.step(tree(1))
    ours = fl.dialects.torch.Adam()
    w = {**tree(0), "a": np.ones(7)}
    w = ours.step(w, w)
    before = ours.state_dict()
    with pytest.raises((ValueError, TypeError)):
        ours.load_state_dict(there.state(), dialect="torch")
    np.testing.assert_equal(ours.state_dict(), before)


@pytest.mark.parametrize("title", every())
def test_before_the_first_step_a_state_comes_and_goes_as_well(title):
    cls = every()[title]
    library = title.split(".")[1]
    if library == "tensorflow":
        return
    need_libraries(library)
    opt = cls.usual()
    opt.load_state_dict(opt.state_dict(dialect=library), dialect=library)
    assert (opt.t, repr(opt)) == (0, repr(cls.usual()))


def test_groups_of_torch_become_settings_by_leaf_and_groups_again():
    torch = need("torch")
    params = {name: torch.nn.Parameter(torch.tensor(leaf)) for name, leaf in tree(0).items()}

    def made():
        own = [(name, params[name]) for name in ("w", "a")]
        other = {"params": [("b", params["b"])], "weight_decay": 0.0, "lr": 0.1}
        return torch.optim.AdamW([{"params": own, "weight_decay": 0.5}, other], lr=0.01)

    def stepped(optimizer, seed):
        for name, g in tree(seed).items():
            params[name].grad = torch.tensor(g)
        optimizer.step()

    theirs = made()
    stepped(theirs, 1)
    w = {name: p.detach().numpy().copy() for name, p in params.items()}
    for knows_leaves in (True, False):
        opt = fl.dialects.torch.AdamW()
        if knows_leaves:
            opt.adapt(w)
        opt.load_state_dict(theirs.state_dict(), dialect="torch")
        v = opt.step(copy.deepcopy(w), tree(2))
        groups = opt.state_dict(dialect="torch")["param_groups"]
        assert [(g["lr"], g["weight_decay"], g["param_names"]) for g in groups] == [
            (0.01, 0.5, ["w", "a"]), (0.1, 0.0, ["b"])]  # fmt: skip
    stepped(theirs, 2)
    assert max(abs(v[name] - p.detach().numpy()).max() for name, p in params.items()) <= 1e-15
    back = made()
    back.load_state_dict(opt.state_dict(dialect="torch"))
    assert all(torch.allclose(back.state[p]["exp_avg"], theirs.state[p]["exp_avg"]) for p in params.values())


def test_a_schedule_stays_and_goes_on_from_the_count_of_the_state():
    need_libraries("keras", "optax")
    w = tree(0)
    ours = fl.dialects.keras.SGD(lambda t: 0.1 * 0.5**t)
    ours.load_state_dict({"iteration": 3, "learning_rate": 0.7}, dialect="keras")
    assert (ours.t, ours.step(w, tree(1)) is w) == (3, True)
    np.testing.assert_allclose(w["a"], tree(0)["a"] - 0.1 * 0.5**3 * tree(1)["a"])
    ours = fl.dialects.optax.sgd(lambda t: 0.1 * 0.5**t)
    ours.load_state_dict({"count": 3}, dialect="optax")
    assert ours.t == 3
    ours = fl.dialects.torch.Adam(fl.schedules.cosine(1.0, steps=10))
    ours.step(w, tree(1))
    ours.load_state_dict(ours.state_dict(dialect="torch"), dialect="torch")
    assert "lr=cosine(peak=1.0, steps=10" in repr(ours)


def test_torch_is_given_no_order_that_is_not_known(tmp_path):
    need("torch")
    w = {"query": np.ones(2), "key": np.ones(2)}
    opt = fl.dialects.torch.Adam()
    w = opt.step(w, {"query": np.full(2, 1.0), "key": np.full(2, 9.0)})
    opt.save(tmp_path / "run", w)
    again, v = fl.load(tmp_path / "run")
    with pytest.raises(ValueError, match=r"order of parameters, which is not known here: call opt.adapt\(params\)"):
        again.state_dict(dialect="torch")
    again.adapt(v)
    assert again.state_dict(dialect="torch")["param_groups"][0]["param_names"] == ["query", "key"]


def test_keras_calls_leaves_by_their_whole_path_or_has_them_in_order():
    keras = need("keras")
    keras.config.set_floatx("float64")
    model = keras.Sequential([keras.layers.Dense(2, name="dense"), keras.layers.Dense(1, name="out")], name="net")
    model.build((None, 3))
    theirs = keras.optimizers.Adam()
    theirs.build(model.trainable_variables)
    theirs.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    state = {v.path: v for v in theirs.variables}
    arrays = [np.array(v.value.detach().numpy()) for v in model.trainable_variables]
    for params in ({v.path: a for v, a in zip(model.trainable_variables, arrays)}, arrays):
        opt = fl.dialects.keras.Adam()
        opt.adapt(params)
        opt.load_state_dict(state, dialect="keras")
        assert opt.t == 1
    twins = {"a": {"b": np.ones(1)}, "a_b": np.ones(1)}
    opt = fl.dialects.keras.Adam()
    opt.step(twins, twins)
    with pytest.raises(ValueError, match="Keras would call two leaves by one name: 'a/b', 'a_b'"):
        opt.state_dict(dialect="keras")


WRONG = {
    "shape": (lambda s: s["state"][0].update(exp_avg=np.ones(3)), ValueError,
              r"exp_avg of 'w' in the state has the shape \(3,\), and here it is \(3, 2\)"),
    "strings": (lambda s: s["state"][0].update(exp_avg=np.array(["a"])), TypeError, "must be an array of numbers"),
    "nan": (lambda s: s["state"][0].update(step=np.nan), ValueError, "step of 'w' of the state must be a whole number"),
    "no params": (lambda s: s["param_groups"][0].pop("params"), ValueError, "each of these with params"),
    "no dict": (lambda s: s.update(state=1), ValueError, "is a dict with state and param_groups"),
    "no state": (lambda s: s["state"].update({0: 1}), ValueError, "The state of 'w' in torch must be a dict"),
    "lr": (lambda s: s["param_groups"][0].update(lr="a"), TypeError, "lr of dialects.torch.Adam must be a number"),
    "other": (lambda s: s["param_groups"][0].update(betas=(0.9,)), TypeError, "betas .* must be 2 numbers"),
    "key": (lambda s: s["state"][0].pop("exp_avg_sq"), ValueError, "'w' in torch lacks exp_avg_sq: it has step, exp"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_state_that_is_none_is_refused_in_a_sentence(what):
    need("torch")
    there = Torch("Adam", {}, tree(0))
    there.step(tree(1))
    state = there.state()
    change, kind, said = WRONG[what]
    change(state)
    ours = fl.dialects.torch.Adam()
    ours.adapt(tree(0))
    before = ours.state_dict()
    with pytest.raises(kind, match=said):
        ours.load_state_dict(state, dialect="torch")
    np.testing.assert_equal(ours.state_dict(), before)


def test_complex_leaves_are_another_formula_in_optax():
    w = {"z": np.ones(2, complex)}
    opt = fl.dialects.optax.adam(0.1)
    opt.step(w, w)
    with pytest.raises(ValueError, match="real and imaginary parts separately, but optax complex numbers"):
        opt.state_dict(dialect="optax")


def test_leaves_of_other_counts_are_refused_where_there_is_one():
    w = tree(0)
    for opt, library in ((fl.dialects.keras.Adam(), "keras"), (fl.dialects.optax.adam(0.1), "optax")):
        opt.step(w, tree(1))
        opt.step(w, {**tree(1), "b": None})
        with pytest.raises(ValueError, match=rf"'b' has had 1 steps and dialects.*2: {library} has one count"):
            opt.state_dict(dialect=library)
    opt = fl.dialects.keras.SGD(momentum=0.9)  # whose formula asks for none
    opt.step(w, {**tree(1), "b": None})
    assert opt.state_dict(dialect="keras")["iteration"] == 1
