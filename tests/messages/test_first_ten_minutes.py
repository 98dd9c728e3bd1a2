"""What a student, an engineer, a user of torch and a maintainer may write first, and what it is answered with."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from needed import need


def value_and_grad(w):
    return float(w @ w), 2 * w


def rosen(x):
    from scipy.optimize import rosen

    return rosen(x)


W, G = np.ones(2), np.ones(2)
DESCENT = {"steps": 3, "value_and_grad": value_and_grad, "params": W, "optimizer": fl.SGD()}
CALLS = {
    # loops
    "a pair that is an array": (lambda: fl.descend(lambda w: 2 * w, W, fl.SGD(), steps=1),
                                r"must return a pair \(value, gradient\)\. Got ndarray\.$"),
    "a callback that is none": (lambda: fl.descend(**DESCENT, callback=1),
                                r"^callback of descend must be a function of a point\. Got 1\.$"),
    "a callback of minimize that is none": (lambda: fl.minimize(rosen, [1, 2], callback=[print]),
                                            r"^callback of minimize must be a function of x\. Got \["),
    "a gradient for jac": (lambda: fl.minimize(rosen, [1, 2], jac=np.ones(2)), r"^jac of minimize must .*Got array\("),
    "a list for jac": (lambda: fl.minimize(rosen, [1, 2], jac=[1.0]), r"^jac of minimize must be .*Got \[1\.0\]\.$"),
    "a method of SciPy": (lambda: fl.minimize(rosen, [1, 2], method="L-BFGS-B"), "It is SciPy's"),
    "an optimizer called": (lambda: fl.Adam()(W, G), r"whose fun must be a function.*opt\.step\(params, grads\)"),
    # links
    "a modifier called with arrays": (lambda: fl.clip_norm(G, 1.0), r"to an optimizer, fallline\.chain\(clip_norm, "),
    "a rule called with arrays": (lambda: fl.rules.sgd(G, W), r"given to an optimizer, fallline\.Optimizer\(sgd\)"),
    "a setting for a chain": (lambda: fl.chain(fl.SGD(), lr=0.1), r"It is a setting of a link: chain\(\.\.\., fall"),
    "an option of a chain": (lambda: fl.chain(fl.SGD(), engin="native"), r"Did you mean engine\?$"),
    # names within rooms
    "a step of the package": (lambda: fl.step(W, G), r"Did you mean Optimizer\.step\?$"),
    "a class for a rule": (lambda: fl.rules.Adam, r"Did you mean adam\?$"),
    "a rule for a class": (lambda: fl.rules.adamm, r"Did you mean adam\?$"),
    "a word that is none": (lambda: fl.ops.mean, r"Write total\(g\)/total\(0\*g \+ 1\) in its place\.$"),
    "another spelling of a dialect": (lambda: fl.dialects.torch.adam, r"Did you mean Adam\?$"),
    "a paper's in a dialect": (lambda: fl.dialects.torch.Lion, r"fallline\.Lion has the formula of its paper\.$"),
    "our name for an argument": (lambda: fl.dialects.keras.Adam(lr=0.1), r"Write learning_rate=\.\.\. in its place"),
    "our names for arguments": (lambda: fl.dialects.optax.adam(0.1, beta1=0.9), r"Write b1=\.\.\. in its place"),
    "an attribute of hyper": (lambda: fl.Adam().hyper.lr, r"opt\.hyper\['lr'\], or .* opt\.lr\.$"),
    "another attribute of hyper": (lambda: fl.Adam().hyper.zebra, r"^opt\.hyper has no attribute 'zebra'\.$"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_people_write_first_is_answered_with_what_to_write(name):
    call, answer = CALLS[name]
    with pytest.raises((TypeError, ValueError, AttributeError), match=answer) as caught:
        call()
    assert caught.value.__cause__ is None


OF_TORCH = {
    "an optimizer's class as method": (lambda t, m: fl.minimize(rosen, [1, 2], method=t.optim.Adam),
                                       r"torch's, whose formula fallline\.dialects\.torch\.Adam has\.$"),
    "an optimizer in descend": (lambda t, m: fl.descend(value_and_grad, W, t.optim.AdamW(m.parameters()), steps=1),
                                r"whose formula fallline\.dialects\.torch\.AdamW has\.$"),
    "a class in a chain": (lambda t, m: fl.chain(fl.clip_norm(1.0), t.optim.SGD),
                           r"whose formula fallline\.dialects\.torch\.SGD has\.$"),
    "a module for parameters": (lambda t, m: fl.torch.AdamW(m), r"model\.parameters\(\)\. Got the module itself\.$"),
    "a module for ours": (lambda t, m: fl.torch.Optimizer(m, fl.Adam()), r"model\.parameters\(\)\. Got the module"),
    "a class in torch": (lambda t, m: fl.torch.Optimizer(m.parameters(), fl.Adam), r"Got the class Adam\.$"),
    "torch's in torch": (lambda t, m: fl.torch.Optimizer(m.parameters(), t.optim.Adam), r"class Adam\. It is torch's"),
    "torch's state": (lambda t, m: fl.Adam().load_state_dict(t.optim.Adam(m.parameters()).state_dict()),
                      r"It is torch's: .*dialect=\"torch\""),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_TORCH)
def test_what_is_torchs_is_told_from_ours(name):
    torch = need("torch")
    call, answer = OF_TORCH[name]
    with pytest.raises((TypeError, ValueError), match=answer):
        call(torch, torch.nn.Linear(2, 1))


def test_a_transformation_of_optax_is_told_from_ours():
    optax = need("optax")
    with pytest.raises(TypeError, match=r"It is optax's, whose formulas fallline\.dialects\.optax has\.$"):
        fl.descend(value_and_grad, W, optax.adam(1e-3), steps=1)
