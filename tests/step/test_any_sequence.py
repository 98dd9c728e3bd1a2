"""Any sequence of calls, the short way among them, gives the bits of the reference engine."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from fallline._optimizer.stepping import Stepper
from needed import need
from short_way import long_way, spread
from support import COMPLEX, HALVES, frozen, gauged, normal

pytestmark = pytest.mark.slow


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

    def update_blindly(self, g):
        params = self.params if self.opt._chain.needs_parameters else None
        for p, d in zip(self.params, self.opt.update(g, params=params)):
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

    def lay_all_in_fortrans_order(self, g):
        self.params = [np.array(p, order="F") for p in self.params]
        self.step([np.array(a, order="F") for a in g])

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
            for params in ([self.params], None):
                with pytest.raises((ValueError, TypeError)):
                    self.opt.step(params, [g])

    def refuse_read_only(self, g):
        self.params[0].flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            self.opt.step(self.params, g)
        self.params[0].flags.writeable = True

    def copy_it(self, g):
        self.opt = copy.deepcopy(self.opt)
        self.step(g)

    def go_on_beside_a_copy(self, g):
        copy.deepcopy(self.opt).step([p.copy() for p in self.params], g)
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


@pytest.mark.parametrize("name", PARTS)
def test_partitions_take_the_short_way_of_all_parts_or_of_none(name, monkeypatch):
    runs = [Run(name, "native"), Run(name, "reference")]
    for seed in range(10):
        for run in runs:
            with monkeypatch.context() as patched:
                if seed >= 6 and run is runs[0]:
                    patched.setattr(Stepper, "_take_checked", long_way)
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
    monkeypatch.setattr(Stepper, "_take_checked", long_way)
    assert opt.step(w, g) is w


def test_parts_of_tensors_take_the_short_way_and_torch_knows_of_it(monkeypatch):
    torch = need("torch")
    w = {"a": torch.ones(3, requires_grad=True), "b": torch.ones(3, dtype=torch.bfloat16)}
    g = {"a": torch.ones(3), "b": torch.ones(3, dtype=torch.bfloat16)}
    opt = fl.chain(fl.clip_norm(1.0), fl.partition({"x": fl.SGD(0.5), "y": fl.SGD(0.5)}, {"a": "x", "b": "y"}))
    for _ in range(3):
        opt.step(w, g)
    versions, before = [x._version for x in w.values()], w["a"].tolist()
    monkeypatch.setattr(Stepper, "_take_checked", long_way)
    opt.step(w, g)
    assert [x._version - old for x, old in zip(w.values(), versions)] == [1, 1]
    assert w["a"].tolist() == pytest.approx([x - 0.5 / 6**0.5 for x in before])
