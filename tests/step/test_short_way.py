"""The short way of a call like the last one: it must not be possible to tell that it was taken, but by a clock."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from fallline.trees import flatten
from needed import need
from support import COMPLEX, FULL, HALVES, every_precision, frozen, gauged, limits, normal


@fl.rule
def cooled(g, t, m=0, *, lr=0.1, beta=0.9):
    """Raises to a power that is not whole, which takes a library's function."""
    m = beta * m + (1 - beta) * g
    return -lr * beta ** (0.5 * t) * m, m


def in_halves(path):
    return "x" if path in ("0", "1") else "y"


def in_turn(path):
    return "x" if path in ("0", "2") else "y"


CHAINS = {
    "Adam": lambda **o: fl.Adam(0.1, **o),
    "Momentum": lambda **o: fl.Momentum(lambda t: 0.5 / (1 + t), **o),
    "cooled": lambda **o: fl.Optimizer(cooled, **o),
    "by leaf": lambda **o: fl.Nadam([0.1, 0.2, 0.1, 0.3], beta1=fl.by_path(lambda path: 0.9 - 0.1 * int(path)), **o),
    "strided": lambda **o: fl.NadaMax(0.1, **o),
    "partly scheduled": lambda **o: fl.AdaMax([0.1, lambda t: 0.5**t, 0.1, lambda t: 0.5 / (1 + t)], **o),
    "decayed": lambda **o: fl.chain(fl.clip_value(0.5), fl.NadaMax(0.1), fl.weight_decay(0.1), **o),
    "low precision": lambda **o: fl.chain(fl.l2(0.5), fl.Nesterov(lambda t: 0.5 / (1 + t)), **o),
    "complex": lambda **o: fl.AdaGrad(0.1, **o),
    "low precision, strided": lambda **o: fl.RMSProp(0.1, **o),
    "clipped": lambda **o: fl.chain(fl.clip_norm(0.5), fl.NadaMax(0.1), fl.weight_decay(0.1), fl.average(0.5), **o),
    "numbers": lambda **o: fl.Optimizer(gauged, **o),
    "accumulated": lambda **o: fl.accumulate(2, fl.clip_norm(0.5), fl.NadaMax(lambda t: 0.5 / (1 + t)), **o),
    "clipped, strided": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Optimizer(gauged), fl.average(0.5), **o),
    "partition": lambda **o: fl.partition({"x": fl.NadaMax(0.1), "y": fl.AdaDelta()}, in_halves, **o),
    "partition, strided": lambda **o: fl.partition(
        {"x": fl.chain(fl.clip_norm(0.5), fl.AdaDelta(rho=lambda t: 0.5 + 0.1 / (1 + t))), "y": fl.Adam(0.1)}, in_turn,
        **o),
    "around a partition": lambda **o: fl.chain(
        fl.l2(0.1), fl.clip_norm(0.5), fl.partition({"x": fl.Optimizer(gauged), "y": fl.AdaDelta()}, in_turn),
        fl.average(0.5), **o),
    "gathered by parts": lambda **o: fl.partition(
        {"x": fl.accumulate(2, fl.NadaMax(lambda t: 0.5 / (1 + t))), "y": fl.AdaDelta()}, in_halves, **o),
    "gathered": lambda **o: fl.accumulate(
        2, fl.clip_norm(0.5), fl.partition({"x": fl.SGD(0.1), "y": fl.AdaDelta()}, in_turn), **o),
    "mask": lambda **o: fl.mask(lambda path: path != "2", fl.Adam(0.1), **o),
}
PARTS = ("partition", "partition, strided", "around a partition", "gathered by parts", "gathered", "mask")
SHAPES = [(3,), (2, 2), (), (0,)]
DTYPES = {  # of the others several
    "Adam": ["f8"] * 4, "decayed": ["f4"] * 4, "low precision": [*HALVES, "f4", "f8"],
    "low precision, strided": [*HALVES, *HALVES], "complex": [*COMPLEX, "f4", "c8"],
    "clipped, strided": ["f4", *HALVES, "f8"],
}  # fmt: skip
STRIDED = ("partly scheduled", "partition, strided", "clipped, strided", "strided",
           "low precision, strided")  # parameters that are views


def spread(array):
    """The same numbers in every other place of memory, backwards."""
    wide = np.full([2 * n for n in array.shape], np.nan, array.dtype)
    view = wide[tuple(slice(None, None, -2) for _ in array.shape)]
    view[...] = array
    return view


class Run:
    """One optimizer and its parameters, driven by actions."""

    def __init__(self, name, engine):
        self.opt = CHAINS[name](engine=engine)
        self.dtypes = DTYPES.get(name, ["f8", "f4", "f4", "f8"])
        self.params = [np.full(shape, 1.0 + k, dtype) for k, (shape, dtype) in enumerate(zip(SHAPES, self.dtypes))]
        self.spare = [np.empty_like(p) for p in self.params]
        if name in STRIDED:
            self.params[1], self.spare[0] = spread(self.params[1]), spread(self.spare[0])
        self.log = []

    def gradients(self, seed):
        rng = np.random.default_rng(seed)
        return [normal(rng, shape, dtype) for shape, dtype in zip(SHAPES, self.dtypes)]

    def act(self, action, seed):
        g = self.gradients(seed)
        getattr(self, action)(g)
        self.log.append((action, self.opt.t, self.opt.skipped, [p.tobytes() for p in self.params],
                         frozen(dict(self.opt.state))))

    def step(self, g):
        assert self.opt.step(self.params, g) is self.params

    def update(self, g):
        for p, d in zip(self.params, self.opt.update(g, params=self.params)):
            p += d

    def update_into(self, g):
        self.opt.update(g, params=self.params, out=g)
        for p, d in zip(self.params, g):
            p += d

    def update_to_spare(self, g):
        assert self.opt.update(g, params=self.params, out=self.spare) is self.spare
        for p, d in zip(self.params, self.spare):
            p += d

    def update_to_a_new_spare(self, g):
        self.spare = [np.empty_like(p) for p in self.params]
        self.update_to_spare(g)

    def step_strided(self, g):
        g[0] = np.repeat(g[0], 2)[::2]
        self.step(g)

    def step_turned(self, g):
        self.step([spread(g[0]), np.asfortranarray(g[1]), *g[2:]])

    def step_broadcast(self, g):
        self.step([np.broadcast_to(g[0][:1], (3,)), g[1].T, *g[2:]])

    def update_turned_to_spare(self, g):
        self.update_to_spare([spread(g[0]), g[1].T, *g[2:]])

    def turn_the_parameters(self, g):
        self.params[1] = spread(self.params[1])
        self.step(g)

    def step_with_nothing(self, g):
        self.step([None] * 4)

    def step_single_precision(self, g):
        self.step([a.real.astype(np.float32) for a in g])

    def step_without_one(self, g):
        self.step([g[0], None, *g[2:]])

    def step_by_the_parameters(self, g):
        self.step([self.params[0], *g[1:]])

    def step_by_another_parameter(self, g):
        self.step([*g[:2], self.params[1].real[0, :1].reshape(()), g[3]])

    def step_by_the_state(self, g):
        slots = next(iter(self.opt.state.values()), g)
        slot = next(iter(slots.values()), g) if isinstance(slots, dict) else slots  # of the first part
        self.step([g[0], g[1] if slot[1] is None else slot[1], *g[2:]])

    def move_the_parameters(self, g):
        self.params = [p.copy() for p in self.params]
        self.step(g)

    def set_a_rate(self, g):
        self.opt.lr = 0.25
        self.step(g)

    def set_the_count(self, g):
        self.opt.t = 100
        self.step(g)

    def refuse(self, g):
        for wrong in ([*g[:3], np.zeros(1)], g[:3], [np.array([1.0, np.nan, 1.0]), *g[1:]],
                      [g[0].real.astype(int), *g[1:]], [g[0], g[1].reshape(4), *g[2:]],
                      [g[0], spread(np.array([[1.0, 1.0], [np.inf, 1.0]], g[1].dtype)), *g[2:]]):  # fmt: skip
            with pytest.raises((ValueError, TypeError)):
                self.opt.step(self.params, wrong)
            with pytest.raises((ValueError, TypeError)):
                self.opt.update(wrong, params=self.params)
        if any(self.opt.state.values()):  # before the first step any dtype will do
            other = "f4" if self.dtypes[1] == "f8" else "f8"
            with pytest.raises(TypeError, match=r"must be (b?float|complex)\d+, as before"):
                self.opt.step([self.params[0], np.zeros((2, 2), other), *self.params[2:]], g)

    def refuse_read_only(self, g):
        self.params[0].flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            self.opt.step(self.params, g)
        self.params[0].flags.writeable = True

    def copy_it(self, g):
        self.opt = copy.deepcopy(self.opt)
        self.step(g)


ACTIONS = [name for name in vars(Run) if not name.startswith("_") and name not in ("act", "gradients")]


@pytest.mark.parametrize("name", CHAINS)
def test_any_sequence_of_calls_gives_the_bits_of_the_reference_engine(name):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.one_of(st.sampled_from(ACTIONS), st.just("step"), st.just("update"),
                                        st.just("update_to_spare")),
                              st.integers(0, 2**32 - 1)), min_size=1, max_size=14))  # fmt: skip
    def check(actions):
        native, reference = Run(name, "native"), Run(name, "reference")
        for action, seed in actions:
            native.act(action, seed)
            reference.act(action, seed)
            assert native.log[-1] == reference.log[-1]

    check()


def long_way(*_):
    raise AssertionError("the call went the long way")


@pytest.mark.parametrize("name", PARTS)
def test_partitions_take_the_short_way_of_all_parts_or_of_none(name, monkeypatch):
    runs = [Run(name, "native"), Run(name, "reference")]
    for seed in range(10):
        for run in runs:
            with monkeypatch.context() as patched:
                if seed >= 6 and run is runs[0]:
                    patched.setattr(type(run.opt), "_take_long_way", long_way)
                run.act("step", seed)
        assert runs[0].log[-1] == runs[1].log[-1], seed
    for action in ("refuse", "refuse_read_only", "step_without_one", "step", "step", "set_a_rate", "step"):
        for run in runs:
            run.act(action, 0)
        assert runs[0].log[-1] == runs[1].log[-1], action


def test_what_one_part_cannot_do_on_the_short_way_changes_nothing_in_any(monkeypatch):
    rate = [0.1]
    opt = fl.partition({"x": fl.Adam(0.1), "y": fl.chain(fl.clip_norm(1.0), fl.SGD(lambda t: rate[0]))},
                       {"a": "x", "b": "y"}, engine="native")
    w, g = ({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)} for _ in range(2))
    for _ in range(4):
        opt.step(w, g)
    before = frozen(w), frozen(dict(opt.state)), opt.t
    for wrong, message in ((1e39, "too large for float32"), (-1.0, "must be ≥ 0"), (np.nan, "must be ≥ 0")):
        rate[0] = wrong
        with pytest.raises(ValueError, match=message):
            opt.step(w, g)
        assert (frozen(w), frozen(dict(opt.state)), opt.t) == before
    rate[0] = 0.1
    with pytest.raises(fl.NonFiniteGradient, match="b has 3 infinite"):
        opt.step(w, {**g, "b": np.full(3, np.inf, np.float32)})
    assert (frozen(w), frozen(dict(opt.state)), opt.t) == before
    monkeypatch.setattr(type(opt), "_take_long_way", long_way)
    assert opt.step(w, g) is w


def test_parts_of_tensors_take_the_short_way_and_torch_knows_of_it(monkeypatch):
    torch = need("torch")
    w = {"a": torch.ones(3, requires_grad=True), "b": torch.ones(3, dtype=torch.bfloat16)}
    g = {"a": torch.ones(3), "b": torch.ones(3, dtype=torch.bfloat16)}
    opt = fl.chain(fl.clip_norm(1.0), fl.partition({"x": fl.SGD(0.5), "y": fl.SGD(0.5)}, {"a": "x", "b": "y"}))
    for _ in range(3):
        opt.step(w, g)
    versions, before = [x._version for x in w.values()], w["a"].tolist()
    monkeypatch.setattr(type(opt), "_take_long_way", long_way)
    opt.step(w, g)
    assert [x._version - old for x, old in zip(w.values(), versions)] == [1, 1]
    assert w["a"].tolist() == pytest.approx([x - 0.5 / 6**0.5 for x in before])


LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "spread": spread,
    "first axis sliced": lambda a: np.repeat(a, 2, axis=0)[::2],
    "axes turned": lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)) if a.ndim < 2 else np.moveaxis(
        np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "field of a record": lambda a: np.array(
        list(zip(a.ravel().tolist(), [7] * a.size)), [("a", a.dtype), ("b", "f8")])["a"].reshape(a.shape),
}  # fmt: skip
SPANS = [(5,), (1024,), (1025,), (3, 1), (1, 7), (7, 300), (3, 2, 5), (2, 1, 3, 4, 5), (200, 181), (40_001,)]


@pytest.mark.parametrize("of_gradients", LAYOUTS)
@pytest.mark.parametrize("of_parameters", LAYOUTS)
def test_arrays_of_any_layout_take_the_short_way_and_get_the_bits_of_contiguous_ones(of_parameters, of_gradients,
                                                                                     monkeypatch):
    rng = np.random.default_rng(0)
    dtypes = ((FULL + HALVES) * 3)[: len(SPANS)]
    numbers = [rng.standard_normal(shape).astype(d) for shape, d in zip(SPANS, dtypes)]
    w, plain = [LAYOUTS[of_parameters](a.copy()) for a in numbers], [a.copy() for a in numbers]
    opts = [fl.Nadam(0.1, engine="native"), fl.Nadam(0.1, engine="reference")]
    targets = [[LAYOUTS[of_parameters](np.zeros_like(a)) for a in numbers], [np.zeros_like(a) for a in numbers]]
    for k in range(6):
        gs = [rng.standard_normal(shape).astype(d) for shape, d in zip(SPANS, dtypes)]
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline.optimizer.HostCall", long_way)
            opts[0].step(w, [LAYOUTS[of_gradients](g) for g in gs])
            opts[0].update([LAYOUTS[of_gradients](g) for g in gs], out=targets[0])
            increments = opts[0].update([LAYOUTS[of_gradients](g) for g in gs])
        opts[1].step(plain, gs)
        opts[1].update(gs, out=targets[1])
        expected = opts[1].update(gs)
        for ours, theirs in ((w, plain), (targets[0], targets[1]), (increments, expected)):
            assert [a.tobytes() for a in ours] == [a.tobytes() for a in theirs], k
    if of_parameters == "spread":  # what lies between is untouched
        assert all(np.isnan(a.base.sum()) and np.count_nonzero(np.isnan(a.base)) == a.base.size - a.size for a in w)


@every_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_strided_gradient_is_checked_wherever_its_bad_number_stands(dtype, bad):
    opt, w = fl.SGD(1.0), np.zeros((181, 200), dtype)
    for _ in range(3):
        opt.step(w, np.ones((200, 181), dtype).T)
    for place in ((0, 0), (90, 100), (180, 199)):
        g = np.full((200, 181), limits(dtype).max, dtype).T
        g[place] = complex(1, bad) if dtype in COMPLEX else bad
        with pytest.raises(fl.NonFiniteGradient):
            opt.step(w, g)
    assert opt.t == 3
    assert (w == -3).all()


def test_leaves_without_a_gradient_take_the_short_way_and_count_for_themselves(monkeypatch):
    rng, results = np.random.default_rng(0), []
    present = rng.random((12, 5)) < 0.6
    gradients = rng.standard_normal((12, 5, 30))
    for engine in ("native", "reference"):
        opt, w = fl.Adam(0.1, engine=engine), {"W": [np.ones(30) for _ in range(4)], "b": np.ones(30)}
        for k, (there, gs) in enumerate(zip(present, gradients)):
            g = [a if is_there else None for a, is_there in zip(gs, there)]
            with monkeypatch.context() as patched:
                if k >= 4 and engine == "native":
                    patched.setattr("fallline.optimizer.HostCall", long_way)
                opt.step(w, {"W": g[:4], "b": g[4]})
        results.append([a.tobytes() for a in (*w["W"], w["b"], opt.state["v"]["b"])])
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_take_the_short_way_and_autograd_hears_of_it(dtype, monkeypatch):
    torch = need("torch")
    kind = getattr(torch, dtype)
    w = {"W": torch.nn.Parameter(torch.ones(3, 4, dtype=kind)), "b": torch.ones(4, dtype=kind)}
    v = {"W": np.ones((3, 4), dtype), "b": np.ones(4, dtype)}
    tensors, arrays = fl.Adam(0.1), fl.Adam(0.1, engine="reference")
    for k in range(6):
        g = {"W": torch.full((4, 3), 0.5 + k, dtype=kind).T, "b": torch.full((4,), -1.0, dtype=kind)}
        versions = [p._version for p in w.values()]
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline.optimizer.HostCall", long_way)
            assert tensors.step(w, g) is w
        arrays.step(v, {name: a.float().numpy().astype(dtype) for name, a in g.items()})
        assert all(p._version > old for p, old in zip(w.values(), versions))
        assert all(w[name].dtype is kind for name in w)
        assert all(np.array_equal(w[name].detach().float(), v[name].astype(np.float32)) for name in w)
    with pytest.raises(ValueError, match="must have the shape"):
        tensors.step(w, {"W": torch.ones(4, 3), "b": torch.ones(4)})


@pytest.mark.parametrize("call", ["step", "update", "out"])
def test_leaves_of_several_dtypes_keep_theirs_whatever_the_gradients_have(call):
    results = []
    for engine in ("native", "reference"):
        opt, w = fl.Adam(0.1, engine=engine), {"a": np.ones(4, np.float32), "b": np.ones(4)}
        opt.step(w, {"a": np.ones(4, np.float32), "b": np.ones(4)})
        out = {"a": np.ones(4, np.float32), "b": np.ones(4)}
        for k in range(5):
            g = {name: np.full(4, 1.0 + k, np.float32) for name in w}
            d = opt.step(w, g) if call == "step" else opt.update(g, out=out if call == "out" else None)
            assert (d["a"].dtype, d["b"].dtype) == (np.float32, np.float64)
            results.append((engine, d["a"].tobytes(), d["b"].tobytes(), opt.state["v"]["b"].tobytes()))
    assert [r[1:] for r in results[:5]] == [r[1:] for r in results[5:]]


def of_its_own_dtype(array):
    """The array as pickle brings it: with a dtype object of its own."""
    found = pickle.loads(pickle.dumps(array))
    if found.dtype is np.dtype(array.dtype.type):  # that of another library's numbers
        found = array.view(np.dtype(array.dtype.type, metadata={"an": "object of its own"}))
    assert found.dtype is not array.dtype
    assert found.dtype == array.dtype
    return found


@every_precision
@pytest.mark.parametrize("call", ["step", "update", "out"])
@pytest.mark.parametrize("pickled", ["parameters", "gradients", "both"])
def test_arrays_that_were_pickled_take_the_short_way(pickled, call, dtype, monkeypatch):
    w = np.ones((3, 4), dtype)
    opt, twin, v = fl.Adam(0.1), fl.Adam(0.1, engine="reference"), w.copy()
    w = w if pickled == "gradients" else of_its_own_dtype(w)
    out = np.empty_like(w)

    def increment(opt, w, g):
        if call == "step":
            return opt.step(w, g)
        return opt.update(g, out=out) if call == "out" and opt is not twin else opt.update(g)

    for k in range(6):
        g = normal(np.random.default_rng(k), (3, 4), dtype)
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline.optimizer.HostCall", long_way)
            found = increment(opt, w, g if pickled == "parameters" else of_its_own_dtype(g))
        assert found.tobytes() == increment(twin, v, g).tobytes()
    swapped = np.ones((3, 4), dtype).astype(dtype.newbyteorder())  # of an equal type too, but not of an equal dtype
    assert increment(opt, w, swapped).tobytes() == increment(twin, v, np.ones_like(v)).tobytes()


def test_where_objects_do_not_lie_in_memory_as_expected_there_is_no_short_way(monkeypatch):
    monkeypatch.setattr("fallline.engines.call.readable", lambda: False)
    opt, w = fl.SGD(1.0), np.zeros(3)
    for _ in range(5):
        opt.step(w, np.ones(3))
    assert not opt._bound.fast
    assert w.tolist() == [-5.0] * 3


def test_gradients_are_not_kept_alive():
    class Watched(np.ndarray):
        pass

    opt, w = fl.Adam(), np.ones(3)
    seen = []
    for _ in range(5):
        g = np.ones(3)
        owner = g.view(Watched)
        view = np.asarray(owner)
        seen.append(weakref.ref(owner))
        opt.step(w, view)
        del g, owner, view
    gc.collect()
    assert not any(ref() is not None for ref in seen)


def test_a_parameter_that_was_resized_in_place_is_noticed():
    w = np.ones(1000)
    opt = fl.SGD(1.0)
    for _ in range(3):
        opt.step(w, np.ones(1000))
    w.resize(10, refcheck=False)
    with pytest.raises(ValueError, match=r"must have the shape \(1000,\)"):
        opt.step(w, np.ones(1000))
    with pytest.raises(ValueError, match=r"must have the shape \(1000,\)"):
        opt.step(w, np.ones(10))


@pytest.mark.parametrize("cls", fl.OPTIMIZERS.values(), ids=fl.OPTIMIZERS)
def test_any_number_of_threads_gives_the_same_bits(cls):
    rng = np.random.default_rng(0)
    sizes = [150_001, 1, 0, 16_384, 100_000, 100_003, 30_001, 100]
    dtypes = [np.float32, np.float32, *HALVES, *HALVES, *COMPLEX]
    start = [normal(rng, n, d) for n, d in zip(sizes, dtypes)]
    gradients = [[normal(rng, n, d) for n, d in zip(sizes, dtypes)] for _ in range(4)]
    results = []
    try:
        for threads in (1, 2, 3, 7):
            fl.set_num_threads(threads)
            opt, w = cls(), [a.copy() for a in start]
            for g in gradients:
                opt.step(w, g)
            results.append([a.tobytes() for a in w] + [a.tobytes() for a in flatten(dict(opt.state))[0]])
    finally:
        fl.set_num_threads(None)
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.parametrize("size", [5, 16_384, 16_385, 400_000])
@every_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_wherever_it_stands_and_nothing_is_changed(size, dtype, bad):
    opt, w = fl.Adam(), np.ones(size, dtype)
    for _ in range(2):
        opt.step(w, np.ones(size, dtype))
    before = w.copy(), opt.state["m"].copy()
    largest = np.full(size, limits(dtype).max, dtype)
    for place in {0, size // 2, size - 1}:
        g = largest.copy()
        g[place] = complex(1, bad) if dtype in COMPLEX else bad
        with pytest.raises(fl.NonFiniteGradient):
            opt.step(w, g)
        with pytest.raises(fl.NonFiniteGradient):
            opt.update(g)
    assert opt.t == 2
    assert before[0].tobytes() == w.tobytes()
    assert before[1].tobytes() == opt.state["m"].tobytes()


INTERRUPTED = """
import random, signal
import numpy as np, fallline as fl

def on_alarm(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, on_alarm)
rng, steps, hits = random.Random(0), 0, 0
opt, w, g = fl.SGD(1.0), np.zeros(200_000), np.ones(200_000)
for _ in range(3):
    opt.step(w, g)
while hits < 200:
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
        while True:
            opt.step(w, g)
    except KeyboardInterrupt:
        hits += 1
    assert w[0] == w[-1] == -opt.t, (w[0], w[-1], opt.t)
    assert (w == w[0]).all()
"""


def test_an_interrupt_at_any_moment_of_a_plain_step_leaves_a_whole_number_of_steps():
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=120)


def test_optimizers_may_step_from_several_threads_at_once():
    n, results, errors = 200_000, {}, []
    gradients = [np.random.default_rng(k).standard_normal(n) for k in range(5)]

    def work(k):
        try:
            opt, w = fl.Adam(0.1), np.ones(n)
            for g in gradients:
                opt.step(w, g)
            results[k] = w.tobytes()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(results.values())) == 1
    assert len(results) == 8


def outcomes(call):
    """What a call gives with either engine: its result, or what it raised, in words."""
    found = []
    for engine in ("reference", "native"):
        try:
            found.append(call(engine))
        except Exception as error:
            found.append(repr(error))
    return found


def steps_of_a_refused_shape(opt, w):
    with pytest.raises(ValueError, match="must have the shape"):
        opt.step(w, [np.ones(3), np.ones(3)])


def steps_of_no_number(opt, w):
    opt.step(w, [np.full(3, np.nan), np.ones(2)])


def steps_of_moved_parameters(opt, w):
    opt.step([a.copy() for a in w], [np.ones(3), np.ones(2)])


def steps_of_another_dtype(opt, w):
    opt.step(w, [np.ones(3, np.float32), np.ones(2)])


def steps_without_a_gradient(opt, w):
    opt.step(w, [np.ones(3), None])


@pytest.mark.parametrize("call", [steps_of_a_refused_shape, steps_of_no_number, steps_of_moved_parameters,
                                  steps_of_another_dtype, steps_without_a_gradient])  # fmt: skip
def test_schedules_are_asked_as_often_as_on_the_long_way(call):
    def asked(engine):
        seen = []
        opt = fl.SGD([lambda t: seen.append(t) or 0.1, lambda t: seen.append(-t) or 0.2], engine=engine,
                     nonfinite="skip")  # fmt: skip
        w = [np.ones(3), np.ones(2)]
        for k in range(12):
            (call if k % 4 == 3 else fl.SGD.step)(opt, *((w,) if k % 4 == 3 else (w, [np.ones(3), np.ones(2)])))
        return seen, opt.t, opt.skipped, [a.tobytes() for a in w]

    reference, native = outcomes(asked)
    assert reference == native


def test_what_is_wrong_with_a_gradient_is_said_before_what_is_wrong_with_a_schedule():
    opt, w = fl.SGD(lambda t: 0.1 if t < 4 else -1.0, nonfinite="skip"), np.ones(3)
    for _ in range(4):
        opt.step(w, np.ones(3))
    opt.step(w, np.full(3, np.nan))
    with pytest.raises(ValueError, match="must have the shape"):
        opt.step(w, np.ones(4))
    with pytest.raises(ValueError, match="from its schedule at t=4"):
        opt.step(w, np.ones(3))
    assert (opt.t, opt.skipped) == (4, 1)


def test_a_schedule_whose_numbers_overflow_on_the_way_does_so_in_silence():
    opt, w = fl.SGD(lambda t: 1 / (1 + np.exp(np.float64(200 * t)))), np.zeros(1)
    for _ in range(8):
        opt.step(w, np.ones(1))
    assert w[0] == -0.5


@pytest.mark.parametrize("factor", [1.0, 1 + 2.0**-50, 1 + 2.0**-25, 1 + 2.0**-24, 2.0])
def test_what_is_too_large_for_a_dtype_is_refused_on_the_short_way_too(factor):
    largest = float(np.finfo(np.float32).max)

    @fl.rule
    def grown(g, t, *, lr=0.1, by=1.0):
        return -lr * by ** (0.5 * t) * g

    def stepped(engine):
        opt, w = fl.Optimizer(grown, lr=lambda t: largest * factor if t == 4 else 0.1, engine=engine), np.ones(3, "f4")
        for _ in range(4):
            opt.step(w, np.ones(3, "f4"))
        opt.step(w, np.ones(3, "f4"))
        return w.tobytes()

    reference, native = outcomes(stepped)
    assert reference == native
    assert ("too large" in str(native)) == (factor > 1)


@pytest.mark.parametrize("nested", [False, True])
def test_a_dropped_optimizer_is_gone_at_once_and_its_schedule_with_it(nested):
    def schedule(t):
        return 0.1

    opt, w = fl.Adam(schedule), [np.ones(3)] if nested else np.ones(3)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            opt.step(w, [np.ones(3)] if nested else np.ones(3))
        seen = weakref.ref(schedule)
        del opt, schedule
        assert seen() is None
    finally:
        gc.enable()


def at_the_last_moment(monkeypatch, act):
    """Have something done once, when a step is about to run: by a finaliser, a handler of signals, another thread."""
    from fallline import fastpass

    real, acts = fastpass.perform, [act]

    def perform(*given):
        if acts:
            acts.pop()()
        return real(*given)

    monkeypatch.setattr(fastpass, "perform", perform)


def test_a_step_from_within_a_step_is_refused_and_that_one_goes_on(monkeypatch):
    n = 20_000
    opt, w = fl.SGD(1.0), [np.zeros(n), np.zeros(3)]
    for _ in range(3):
        opt.step(w, [np.ones(n), np.ones(3)])

    def step_too():
        with pytest.raises(fl.BusyOptimizer):
            opt.step(w, [np.full(n, 10.0), np.ones(3)])

    at_the_last_moment(monkeypatch, step_too)
    opt.step(w, [np.ones(n), np.ones(3)])
    assert opt.t == 4
    opt.step(w, [np.ones(n), np.ones(3)])
    assert (w[0] == -5).all()
    assert opt.t == 5


def test_strides_that_change_under_a_step_do_not_lead_it_astray(monkeypatch):
    opt, w = fl.SGD(1.0), np.zeros((2, 20_000))
    wide = np.arange(80_000.0).reshape(2, 40_000)
    for _ in range(3):
        opt.step(w, np.zeros((2, 40_000))[:, ::2])
    g = wide[:, ::2]
    expected = -g

    def turn():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            g.strides = (0, 0)

    at_the_last_moment(monkeypatch, turn)
    opt.step(w, g)
    assert g.strides == (0, 0)
    assert (w == expected).all()


def test_another_librarys_flush_to_zero_reaches_neither_schedules_nor_scalars():
    torch = need("torch")

    @fl.rule
    def faint(g, t, *, lr=0.0, by=0.5):
        return -lr * by ** (0.5 * t) * 1e-150 * g

    def run(engine, flush):
        opts = [fl.SGD(lambda t: np.float64(1e-155) * 1e-160, engine=engine),
                fl.Optimizer(faint, lr=1e-165, engine=engine)]
        found = []
        try:
            if not torch.set_flush_denormal(flush):
                pytest.skip("this processor does not flush")
            for opt in opts:
                w = np.zeros(3)
                for _ in range(6):
                    opt.step(w, np.full(3, 1e308))
                found.append(w.tobytes())
        finally:
            torch.set_flush_denormal(False)
        return found

    expected = run("reference", False)
    assert np.zeros(3).tobytes() not in expected
    assert run("native", True) == run("native", False) == run("reference", True) == expected


@pytest.mark.parametrize(("asked", "set_by_it"), [("lr", "beta1"), ("beta1", "lr"), ("beta2", "lr")])
def test_what_a_schedule_sets_takes_effect_at_the_next_step(asked, set_by_it):
    def stepped(engine):
        def schedule(t):
            if t > 2:
                setattr(opt, set_by_it, 0.05 + 0.01 * t)
            return 0.5

        opt, w = fl.Adam(engine=engine, **{"lr": 0.1, asked: schedule}), np.ones(3)
        for t in range(8):
            opt.step(w, np.full(3, 0.3 + t))
        return w.tobytes()

    reference, native = outcomes(stepped)
    assert reference == native
