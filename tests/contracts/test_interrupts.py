"""An interrupt at any line of a call: whole steps, or an optimizer that says it is torn."""

import sys

import numpy as np
import pytest

import fallline as fl
from support import everything_of

pytestmark = pytest.mark.slow

BETWEEN = ("turn.py", "arithmetic.py")  # what they do last has no call in it, where alone CPython looks for signals


def interrupted(call, n, since):
    """Make a call that is interrupted at the n-th line of fallline's since it came to a function; whether it has so
    many."""
    seen, begun, before = 0, False, sys.gettrace()

    def trace(frame, event, _):
        nonlocal seen, begun
        path = frame.f_code.co_filename
        begun = begun or frame.f_code.co_name == since
        if not begun or "fallline" not in path or path.endswith(BETWEEN):
            return None
        seen += event == "line"
        if seen == n and event == "line":
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.fixture(autouse=True)
def the_error_state_of_numpy():
    """An interrupt may come, though hardly ever, between NumPy's setting it and the block that sets it back."""
    before = np.geterr()
    yield
    np.seterr(**before)


def trees():
    return {"a": np.ones(3), "b": np.ones((4, 2))[:, 0]}, {"a": np.full(3, 0.5), "b": np.full(4, -0.5)}


def plain():
    return [{"a": np.ones(3), "b": np.ones(4, np.float32)}, {"a": np.full(3, 0.5), "b": np.full(4, -0.5, np.float32)}]


def in_two(engine):
    return fl.partition({"x": fl.Adam(0.1), "y": fl.Momentum(0.1)}, {"a": "x", "b": "y"}, engine=engine)


CASES = {  # an optimizer; parameters and gradients; the steps before, after which native code takes the short way
    "contiguous": (lambda e: fl.Adam(0.1, engine=e), plain, 0),
    "contiguous, later": (lambda e: fl.Adam(0.1, engine=e), plain, 3),
    "by coordinate": (lambda e: fl.Adam({"a": np.full(3, 0.1), "b": 0.1}, engine=e), plain, 1),
    "strided, first": (lambda e: fl.Adam(0.1, engine=e), trees, 0),
    "strided, second": (lambda e: fl.Adam(0.1, engine=e), trees, 1),
    "strided, later": (lambda e: fl.Adam(0.1, engine=e), trees, 3),
    "without a gradient": (lambda e: fl.Adam(0.1, engine=e), lambda: [plain()[0], {**plain()[1], "b": None}], 0),
    "behind a norm": (lambda e: fl.chain(fl.clip_norm(0.1), fl.Adam(0.1), engine=e), plain, 1),
    "two parts, first": (in_two, plain, 0),
    "two parts, second": (in_two, plain, 1),
    "a mask, first": (lambda e: fl.mask({"a": True, "b": False}, fl.Adam(0.1), engine=e), plain, 0),
}


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_an_interrupt_at_any_line_of_a_step_leaves_whole_steps_or_a_torn_optimizer(case, engine):
    make, arrays, steps = CASES[case]
    n, torn, expected = 0, 0, {}
    twin, (v, g) = make(engine), arrays()
    for t in range(steps + 3):
        expected[t] = everything_of(twin), [a.tobytes() for a in v.values()]
        twin.step(v, arrays()[1] if t < steps else g)
    going_on = True
    while going_on:
        n += 1
        opt, (w, g) = twin.fresh(), arrays()
        for _ in range(steps):
            opt.step(w, g)
        since = "step" if steps and engine == "native" else "_commit"  # where changes begin
        going_on = interrupted(lambda: opt.step(w, g), n, since)  # noqa: B023
        try:
            opt.step(w, g)
        except fl.TornOptimizer:
            torn += 1
            with pytest.raises(fl.TornOptimizer, match="reset"):
                opt.state_dict()
            continue
        assert (everything_of(opt), [a.tobytes() for a in w.values()]) == expected[opt.t], n
    assert n > 5
    assert bool(torn) == (engine == "reference")


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("act", [
    lambda opt, saved: opt.reset(),
    lambda opt, saved: setattr(opt, "t", 7),
    lambda opt, saved: setattr(opt, "lr", 0.5),
    lambda opt, saved: opt.load_state_dict(saved),
    lambda opt, saved: opt.load_state_dict({**opt.fresh().state_dict(), "t": 5}),
])  # fmt: skip
def test_an_interrupt_at_any_line_of_what_sets_the_state_leaves_it_done_or_not_begun_or_torn(engine, act):
    def made(steps):
        opt, (w, g) = first.fresh(), plain()
        for _ in range(steps):
            opt.step(w, {**g, "b": None} if opt.t == 1 else g)
        return opt

    def afterwards(opt):
        opt.step(*plain())
        return everything_of(opt)

    first = fl.Adam(0.1, engine=engine)
    done = made(3)
    saved = made(2).state_dict()
    act(done, saved)
    outcomes = {"not begun": afterwards(made(3)), "done": afterwards(done)}
    n, going_on, found = 0, True, []
    while going_on:
        n += 1
        opt = made(3)
        going_on = interrupted(lambda: act(opt, saved), n, "_hold")  # noqa: B023
        try:
            after = afterwards(opt)
        except fl.TornOptimizer:
            found.append("torn")
            continue
        assert after in outcomes.values(), n
        found.append(next(name for name, wanted in outcomes.items() if wanted == after))
    assert found[-1] == "done"
    assert "not begun" in found
