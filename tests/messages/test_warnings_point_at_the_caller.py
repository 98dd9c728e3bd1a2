"""Every warning that fallline gives points at the line of the caller, whoever called in between."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import fallline as fl
from needed import need
from places import ROOT
from support import run_alone

SMALL, ONE = np.full(2, 1e-7), np.ones(2)


def small(x, *_):
    return 0.0, SMALL


def in_torch(optimizer):
    torch = need("torch")
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.full((2,), 1e-7)
    return fl.torch.Optimizer([p], optimizer)


def scipy_minimize(*args, **named):
    from scipy.optimize import minimize

    return minimize(*args, **named)


# Each call is made on the line of its lambda.
DAMPED, NONE, UNUSED = "below √eps", "are None, and the call counts", "does not use"
CALLS = [
    (DAMPED, lambda: fl.Adam().step(ONE.copy(), SMALL)),
    (DAMPED, lambda: fl.Adam().update(SMALL)),
    (DAMPED, lambda: fl.Adam(engine="reference").step(ONE.copy(), SMALL)),
    (DAMPED, lambda: fl.chain(fl.clip_norm(1.0), fl.Adam()).step({"a": ONE.copy()}, {"a": SMALL})),
    (DAMPED, lambda: fl.partition({"a": fl.Adam()}, lambda path: "a").step([ONE.copy()], [SMALL])),
    (DAMPED, lambda: fl.descend(small, ONE, fl.Adam(), steps=1)),
    (DAMPED, lambda: fl.minimize(small, ONE, method=fl.Adam(), jac=True, options={"maxiter": 1, "gtol": 0})),
    (DAMPED, lambda: in_torch(fl.Adam()).step()),
    (NONE, lambda: fl.SGD().step(ONE.copy(), None)),
    (NONE, lambda: fl.SGD().update({"a": None}, params={"a": ONE.copy()})),
    (NONE, lambda: fl.Adam(engine="eager").step({"a": ONE.copy()}, {"a": None})),
    (NONE, lambda: fl.mask(lambda path: path == "a", fl.SGD()).step({"a": 1.0, "b": 1.0}, {"a": None, "b": 1.0})),
    (NONE, lambda: fl.partition({"a": fl.SGD(), "b": fl.Adam()}, {"x": "a", "y": "b"}).step(
        {"x": 1.0, "y": 1.0}, {"x": None, "y": None})),
    (NONE, lambda: fl.accumulate(2, fl.SGD()).step([1.0], [None])),
    (NONE, lambda: fl.Muon().step({"W": np.ones((2, 2))}, {"W": None})),
    (NONE, lambda: fl.descend(lambda w: (0.0, {"a": None}), {"a": ONE}, fl.SGD(), steps=1)),
    (UNUSED, lambda: scipy_minimize(lambda x: (x @ x, 2 * x), ONE, jac=True, method=fl.SGD(), options={"maxfev": 3})),
]  # fmt: skip


@pytest.mark.parametrize(("said", "call"), CALLS, ids=range(len(CALLS)))
def test_a_warning_points_at_the_line_of_the_call(said, call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert [said in str(warning.message) for warning in caught] == [True]
    assert caught[0].filename == __file__
    line = scipy_minimize.__code__.co_firstlineno + 3 if said == UNUSED else call.__code__.co_firstlineno
    assert line <= caught[0].lineno <= line + 1


def test_the_warning_that_llvmlite_is_missing_points_at_the_line_of_the_call():
    script = ("import sys, warnings\nsys.modules['llvmlite'] = None\nimport numpy as np, fallline as fl\n"
              "def mine():\n    return fl.descend(lambda w: (0.0, w), np.ones(2), fl.SGD(), steps=1)  # here\n"
              "with warnings.catch_warnings(record=True) as caught:\n    warnings.simplefilter('always')\n    mine()\n"
              "print(*((w.filename, w.lineno, 'reference engine' in str(w.message)) for w in caught))\n")  # fmt: skip
    assert run_alone(script) == "('<string>', 5, True)\n"


def test_all_warnings_of_the_sources_go_one_way():
    sources = [*(ROOT / "src").rglob("*.py")]
    found = [path.name for path in sources if re.search(r"\bwarnings\.warn\(", path.read_text(encoding="utf-8"))]
    assert found == ["warned.py"]


# ---- gradients that are all None -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_that_there_was_no_gradient_is_said_at_the_first_call_alone(engine):
    opt, w = fl.Adam(engine=engine), {"a": np.ones(2), "b": np.ones(2)}
    with pytest.warns(UserWarning, match=r"All gradients given to Adam are None.* was backward\(\) forgotten"):
        opt.step(w, {"a": None, "b": None})
    assert (opt.t, w["a"].tolist()) == (1, [1.0, 1.0])
    for _ in range(3):
        opt.step(w, {"a": None, "b": None})
    assert opt.t == 4
    later = fl.Adam(engine=engine)
    for g in ({"a": ONE, "b": None}, {"a": None, "b": None}, {"a": None, "b": ONE}):  # frozen leaves, empty batches
        later.step(w, g)


def test_leaves_that_are_left_alone_and_empty_trees_are_no_lack_of_gradients():
    opt = fl.mask(lambda path: path == "a", fl.SGD())
    opt.step({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": None})
    fl.SGD().step({}, {})
    frozen = fl.partition({"a": fl.SGD(), "rest": None}, lambda path: "rest")
    frozen.step({"x": 1.0}, {"x": None})


def test_a_warning_that_is_made_an_error_has_changed_nothing():
    opt, w = fl.Momentum(), np.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="All gradients"):
            opt.step(w, None)
    assert (opt.t, w.tolist()) == (0, [1.0, 1.0])
    opt.step(w, np.ones(2))
    assert opt.t == 1


def test_a_torch_loop_passes_over_missing_gradients_in_silence_as_torch_does():
    torch = need("torch")
    p = torch.nn.Parameter(torch.ones(2))
    for opt in (fl.torch.AdamW([p]), fl.torch.Optimizer([{"params": [p]}], fl.Adam())):
        opt.step()
        assert p.tolist() == [1.0, 1.0]
    with pytest.warns(UserWarning, match="All gradients"):
        fl.Adam().step({"p": p}, {"p": p.grad})
