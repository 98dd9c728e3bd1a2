"""One call at a time is at an optimizer: neither another thread nor a schedule comes between."""

import signal
import threading

import numpy as np
import optree
import pytest

import fallline as fl
from needed import need
from support import every_engine, everything_of, memory_of, run_alone

CALLS = {
    "step": lambda opt, w: opt.step(w, np.ones_like(w)),
    "update": lambda opt, w: opt.update(np.ones_like(w)),
    "update with out=": lambda opt, w: opt.update(np.ones_like(w), out=np.empty_like(w)),
    "reset": lambda opt, w: opt.reset(),
    "load_state_dict": lambda opt, w: opt.load_state_dict(opt.state_dict()),
    "t": lambda opt, w: setattr(opt, "t", 7),
    "adapt": lambda opt, w: opt.adapt(w),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("size", [3, 20_000, 150_000])
@pytest.mark.parametrize("engine", ["native", "reference", "eager"])
def test_a_schedule_cannot_step_nor_reset_nor_load_its_own_optimizer(engine, size, call):
    refused = []

    def rate(t):
        if acts:
            with pytest.raises(fl.BusyOptimizer, match="a schedule, must not step or reset it, load a state or set t"):
                CALLS[call](opt, w)
            refused.append(t)
        return 0.1 / (1 + t)

    acts = True
    opt, w, twin, v = fl.Adam(rate, engine=engine), np.ones(size), fl.Adam(lambda t: 0.1 / (1 + t)), np.ones(size)
    for k in range(6):  # the first on the long way, the last on the short one
        opt.step(w, np.full(size, 1.0 + k))
        opt.update(np.full(size, 2.0 + k))
        acts = False
        if engine != "eager":
            twin.step(v, np.full(size, 1.0 + k))
            twin.update(np.full(size, 2.0 + k))
            assert (memory_of(opt), w.tobytes()) == (memory_of(twin), v.tobytes())
        acts = True
    assert sorted(set(refused)) == list(range(12))


@pytest.mark.parametrize("engine", ["native", "reference", "eager"])
@pytest.mark.parametrize("at", [0, 1, 2, 5])
@pytest.mark.parametrize("call", CALLS)
def test_a_step_whose_schedule_does_so_is_refused_and_changes_nothing(engine, at, call):
    def rate(t):
        if t == at:
            CALLS[call](opt, w)
        return 0.1

    opt, w = fl.Momentum(rate, engine=engine), np.ones(3)
    for _ in range(at):
        opt.step(w, np.ones(3))
    before = memory_of(opt), w.tobytes()
    for refused in (lambda: opt.step(w, np.ones(3)), lambda: opt.update(np.ones(3))):
        with pytest.raises(fl.BusyOptimizer):
            refused()
        assert (memory_of(opt), w.tobytes()) == before
    opt.lr = 0.1
    opt.step(w, np.ones(3))
    assert opt.t == at + 1


@every_engine
@pytest.mark.parametrize("asked", ["lr", "eps"])
def test_what_a_schedule_sets_takes_effect_at_the_next_step_the_first_included(engine, asked):
    def value(t):
        opt.beta1 = 0.3 + 0.1 * t
        return 0.1

    opt, w = fl.Adam(engine=engine, **{"lr": 0.1, "eps": 0.1, asked: value}), np.ones(3)
    twin, v = fl.Adam(0.1, eps=0.1, engine=engine), np.ones(3)
    for t in range(6):
        opt.step(w, np.full(3, 0.3 + t))
        twin.step(v, np.full(3, 0.3 + t))
        twin.beta1 = 0.3 + 0.1 * (t if asked == "lr" else 0)  # eps is asked for once: where v starts
        assert opt.beta1 == twin.beta1
        assert (memory_of(opt), w.tobytes()) == (memory_of(twin), v.tobytes())


@every_engine
def test_what_a_schedule_sets_in_the_first_step_must_fit_or_nothing_is_changed(engine):
    def rate(t):
        opt.beta1 = {"a": 0.5}
        return 0.1

    opt, w = fl.Adam(rate, engine=engine), np.ones(3)
    with pytest.raises(ValueError, match="beta1 of Adam must have the structure"):
        opt.step(w, np.ones(3))
    assert (opt.t, w.tolist()) == (0, [1.0] * 3)


@every_engine
def test_a_schedule_may_read_its_optimizer_and_step_others(engine):
    seen = []

    def rate(t):
        other.step(v, np.ones(3))
        opt.fresh().load_state_dict(opt.state_dict())
        seen.append((opt.t, opt.state_dict()["t"], opt.beta1, other.t))
        return 0.1

    other, v = fl.SGD(1.0, engine=engine), np.ones(3)
    opt, w = fl.Adam(rate, engine=engine), np.ones(3)
    for _ in range(5):
        opt.step(w, np.ones(3))
    assert seen == [(t, t, 0.9, t + 1) for t in range(5)]
    assert v.tolist() == [-4.0] * 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers are not had here")
def test_a_handler_of_signals_may_step_another_optimizer():
    def handler(*_):
        other.step(v, np.ones(3))
        signal.setitimer(signal.ITIMER_REAL, 2e-4)

    other, v = fl.SGD(1.0), np.zeros(3)
    opt, w = fl.SGD(1.0), np.zeros(150_000)
    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 2e-4)
        while other.t < 100:
            opt.step(w, np.ones_like(w))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert (w == -opt.t).all()
    assert (v == -other.t).all()


@every_engine
def test_a_callback_of_descend_comes_between_steps_and_may_step_the_optimizer(engine):
    opt = fl.SGD(1.0, engine=engine)

    def callback(point):
        opt.step(np.ones(3), np.ones(3))

    result = fl.descend(lambda w: (float(w.sum()), np.ones(3)), np.zeros(3), opt, steps=3, callback=callback,
                        progress=False)  # fmt: skip
    assert result.params.tolist() == [-3.0] * 3


RESIZED = """
import sys
import numpy as np, fallline as fl

class Own(np.ndarray):
    pass

def run(engine, kind, which, new, at):
    canaries = []

    def rate(t):
        if t == at:
            arrays[which].resize(new, refcheck=False)
            canaries.extend(np.full(m, 7.0) for m in (1, 2, 8, 64, 512, 4096, 4900) * 4)  # some lie where it lay
        return 0.1

    def array():
        return np.ones(5000, complex) if kind == "complex" else np.ones(5000).view(Own) if kind == "subclass" else (
            np.ones(5000))

    opt = fl.Momentum(rate, engine=engine)
    arrays = {"w": array(), "g": array()}
    if kind == "subclass":
        arrays = {name: np.ndarray.__new__(Own, 5000) for name in arrays}
        for a in arrays.values():
            a[...] = 1
    for _ in range(at):
        opt.step(arrays["w"], arrays["g"])
    before = arrays["w"][:10].tolist(), arrays["g"][:10].tolist()
    try:
        opt.step(arrays["w"], arrays["g"])
    except ValueError as error:
        assert "resized" in str(error) or "must have the shape" in str(error), error
    else:
        raise AssertionError("stepped")
    assert opt.t == at
    assert (arrays["w"][:10].tolist(), arrays["g"][:10].tolist()) == before
    assert all((c == 7).all() for c in canaries)

for kind in ("plain", "complex", "subclass"):
    for which in "wg":
        for new in (10, 10_000, 400_000):
            for at in (0, 1, 2, 5):
                run(sys.argv[1], kind, which, new, at)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "reference", "eager"])
def test_a_schedule_that_resizes_an_array_of_the_call_leads_no_step_out_of_it(engine):
    run_alone(RESIZED, engine)


STRANGE = """
import sys
import numpy as np, fallline as fl

class Strange:
    dtype, shape = np.dtype("float64"), (5000,)

    def __array_namespace__(self, **_):
        return np

    def __array__(self, dtype=None, copy=None):
        if sys.argv[2] == "resizes":
            w.resize(10, refcheck=False)
            canaries.extend(np.full(m, 7.0) for m in (1, 2, 8, 64, 512, 4096, 4900) * 4)
        return np.ones(10 if sys.argv[2] == "is another" else 5000)

opt, w, canaries = fl.SGD(1.0, engine=sys.argv[1]), np.ones(5000), []
for _ in range(2):
    try:
        opt.step(w, Strange())
    except ValueError as error:
        assert "must have the shape" in str(error), error
    else:
        raise AssertionError("stepped")
    assert all((c == 7).all() for c in canaries)
    w = np.ones(5000)
opt.step(w, np.ones(5000))
assert (w == 0).all()
"""


@pytest.mark.slow
@every_engine
@pytest.mark.parametrize("gradient", ["resizes", "is another"])
def test_a_gradient_whose_library_gives_another_shape_or_resizes_parameters_is_refused(engine, gradient):
    run_alone(STRANGE, engine, gradient)


# ---- several threads -------------------------------------------------------------------------------------------------


class Held:
    """A gradient, of no library that is known, that waits before it tells its numbers."""

    def __init__(self, numbers, first):
        self.dtype, self.shape, self._numbers, self._first = numbers.dtype, numbers.shape, numbers, first

    def __array_namespace__(self, **_):
        return np

    def __array__(self, dtype=None, copy=None):
        self._first()
        return self._numbers


@optree.register_pytree_node_class(namespace=optree.registry.__GLOBAL_NAMESPACE)
class Gate:
    """A container of one array that waits before it tells it."""

    def __init__(self, leaf, first=lambda: None):
        self.leaf, self.first = leaf, first

    def tree_flatten(self):
        self.first()
        return (self.leaf,), None, None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def started(call, errors):
    """A thread that makes the call."""
    def work():
        try:
            call()
        except fl.BusyOptimizer as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("within", [lambda opt: opt.state_dict(), lambda opt: setattr(opt, "beta1", opt.beta1),
                                    lambda opt: None])  # fmt: skip
def test_no_thread_slips_in_when_a_call_within_a_call_has_left(within):
    opt, w = fl.Adam(0.1), np.ones(3)
    for _ in range(4):
        opt.step(w, np.ones(3))  # which is now one native call
    twin, v, errors = fl.Adam(0.1), np.ones(3), []
    for _ in range(5):
        twin.step(v, np.ones(3))

    def first():
        within(opt)
        started(lambda: opt.step(w, np.ones(3)), errors).join()

    opt.step(w, Held(np.ones(3), first))
    assert len(errors) == 1
    assert (everything_of(opt), w.tobytes()) == (everything_of(twin), v.tobytes())


def test_no_thread_slips_in_that_began_before_the_call_took_its_turn():
    need("llvmlite")  # of the quick looks
    opt, w, errors = fl.Adam(0.1), Gate(np.ones(3)), []
    for _ in range(4):
        opt.step(w, Gate(np.ones(3)))
    twin, v = fl.Adam(0.1), np.ones(3)
    for _ in range(5):
        twin.step(v, np.ones(3))
    arrived, go_on = threading.Event(), threading.Event()
    early = started(lambda: opt.step(w, Gate(np.ones(3), lambda: arrived.set() or go_on.wait(30))), errors)
    assert arrived.wait(30)

    def first():
        go_on.set()
        early.join()

    opt.step(w, Gate(Held(np.ones(3), first)))
    assert len(errors) == 1
    assert opt.t == 5
    assert (w.leaf.tobytes(), opt.state["v"].leaf.tobytes()) == (v.tobytes(), twin.state["v"].tobytes())
