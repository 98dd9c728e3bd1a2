"""What the generic tests share: the tables they loop over, small trees, and pictures of objects to the bit."""

from __future__ import annotations

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import settings

import fallline as fl
from places import DOCS
from reference_formulas import TRANSCRIPTIONS

RULES = {name: cls.rule for name, cls in fl.OPTIMIZERS.items()}
NAMES = list(RULES)
SLOTS = {name: [slot for slot in rule.slots if slot not in rule.scopes] for name, rule in RULES.items()}
NUMBERS = {name: list(rule.scopes) for name, rule in RULES.items()}  # state that is one number, of a leaf or the tree
WITH_STATE = [name for name in NAMES if SLOTS[name]]
RATE_STARTS = [name for name in NAMES if "lr" in RULES[name].slots.values()]  # of which lr is only where rates start
WITH_RATE = [name for name in NAMES if "lr" in RULES[name].hyper and name not in RATE_STARTS]
WITH_EPS = [name for name in NAMES if "eps" in RULES[name].hyper]
WITH_EPS_ZERO = [name for name in WITH_EPS if RULES[name].hyper["eps"].range.holds(0.0)]
EPS_SLOTS = {name: [k for k, start in RULES[name].slots.items() if start == "eps"] for name in NAMES}
WITHOUT_DECAY = {name: {k: 0.0 for k in RULES[name].hyper if k == "weight_decay"} for name in NAMES}
WITH_PARAMETER = [name for name in NAMES if "x" in RULES[name].given]  # in the formula
WITH_POWERS_OF_T = [name for name in NAMES if "t" in RULES[name].given]
WITH_BETAS = [name for name in WITH_POWERS_OF_T if {"beta1", "beta2"} <= set(RULES[name].hyper)]
WHOLE_LEAF = [name for name in NAMES if RULES[name].whole_leaf]


def sums_over(name):
    """Over what the formula of a rule has sums: "leaf", "tree"."""
    readings = () if name in WHOLE_LEAF else build(name)._chain.updating.readings
    return {total.over for reading in readings for total in reading.totals}


def build(name, engine="auto", **keywords):
    return fl.OPTIMIZERS[name](engine=engine, **keywords)


def is_by_sign(name):
    """Whether an infinite gradient leaves the step of a rule finite, which goes by its sign alone."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(build(name, "eager", nonfinite="propagate").step(np.ones(1), np.full(1, np.inf))))


# A sum over a leaf or the tree has an order that the leaves fix: one array or many differ in the last bits, and two
# sums may round to different steps where three leaves stand for one. A sum of the tree has leaves depend on each other.
OF_THE_LEAF = [name for name in NAMES if "leaf" in sums_over(name)]
OF_THE_TREE = [name for name in NAMES if "tree" in sums_over(name)]
POINTS = {name: slots for name in NAMES if (slots := {k for k, start in RULES[name].slots.items() if start == "x"})}
# A parameter that is subnormal is 0 as a point of the state, which holds no subnormal numbers. Where the parameter is
# drawn to that point (and another is the point to report), it moves.
SUBNORMAL_MOVES = [name for name in POINTS if RULES[name].rest]

BY_SIGN = [name for name in NAMES if name not in WHOLE_LEAF and is_by_sign(name)]

# What no attribute of a rule says, each with the reason. A rule that is in none of these is like most.
FADING = ["Adafactor"]  # its steps are at most 1/√t
STILL = {"Prodigy": {"x0"}}  # slots that stay what they start at
FOR_EVER = {  # slots that zero gradients never let fade: sums, maxima, rates, an average over all of time, points
    "AdaGrad": {"v"}, "AMSGrad": {"v_max"}, "Rprop": {"rate"}, "Adafactor": {"v"}, **POINTS,
}  # fmt: skip
RATE_INSIDE = {  # slots that are made of steps, and so of the rate: velocities, points, a sum of steps
    "Momentum": {"velocity"}, "Nesterov": {"velocity"}, "LARS": {"velocity"}, **POINTS,
    "Prodigy": {"s", *POINTS["Prodigy"]},
}  # fmt: skip
# Where a formula loses digits by itself. RAdam: ρ is a difference of numbers near 2/(1 - beta2), and at step 5 good to
# 1e-10. AdaBelief: g - m under a constant gradient is what rounding left of it.
GOOD_TO = {"RAdam": 1e-10}
NOT_OF_CONSTANTS = ["AdaBelief"]

# What a generic test may need of a rule (`pytest.mark.needs`), and the rules without it, of which it is no test. The
# formula of a rule of whole leaves is a function of NumPy's arrays: it couples coordinates in any way, computes with
# new arrays, and takes no others.
LACKING = {
    "complex arrays": WHOLE_LEAF,
    "other arrays": WHOLE_LEAF,
    "a short way": WHOLE_LEAF,
    "no new arrays": WHOLE_LEAF,
    "a formula of coordinates": WHOLE_LEAF,
    "coordinates alone": [*WHOLE_LEAF, *OF_THE_LEAF, *OF_THE_TREE],
    "leaves alone": OF_THE_TREE,
    "a transcription": [name for name in NAMES if name not in TRANSCRIPTIONS],
    "a page": [name for name in NAMES if not (DOCS / "optimizers" / f"{name}.svg").exists()],
    "slots like the leaf": [name for name in NAMES if RULES[name].shapes],
}
STANDING = ["Momentum", "Adam", "LARS", "ScheduleFreeAdamW", "Prodigy", "Muon"]  # in the quick subset, one of a kind


def suits(item):
    """Whether the rule of a test, if it is about one, has what the test needs."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    name = params.get("name", getattr(params.get("cls"), "__name__", None))
    needs = [need for mark in item.iter_markers("needs") for need in mark.args]
    if params.get("dtype") in COMPLEX:
        needs.append("complex arrays")
    if params.get("engine") == "eager":
        needs.append("other arrays")
    return not any(name in LACKING[need] for need in needs)


def is_one_of_many(item):
    """Whether a test is about a rule for which another stands in the quick subset."""
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = {getattr(value, "__name__", value) for value in params if isinstance(value, (str, type))}
    return not names.isdisjoint(set(NAMES) - set(STANDING))


MORE = int(os.environ.get("FALLLINE_EXAMPLES", 1))  # times as many examples as in the suite, others at each run


def drawn(examples):
    """Of a property test: so many examples, the same at each run, or with FALLLINE_EXAMPLES=20 as many times more."""
    return settings(max_examples=examples * MORE, deadline=None, derandomize=MORE == 1)


every_optimiser = pytest.mark.parametrize("name", NAMES)
every_engine = pytest.mark.parametrize("engine", ["reference", "native"])
FULL = [np.dtype("float64"), np.dtype("float32")]
HALVES = [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]
COMPLEX = [np.dtype("complex64"), np.dtype("complex128")]
every_dtype = pytest.mark.parametrize("dtype", FULL, ids=str)  # that is computed in itself
every_half = pytest.mark.parametrize("dtype", HALVES, ids=str)
every_precision = pytest.mark.parametrize("dtype", FULL + HALVES + COMPLEX, ids=str)


def and_one_in_every_precision(names):
    """These rules in the dtypes of full precision, and one rule in the others too: for what rules and dtypes do not
    change together. Their product is tried where engines are compared on any numbers: engines/test_agreement.py, and
    fault 15.
    """
    cases = [(name, dtype) for name in names for dtype in FULL] + [("Adam", dtype) for dtype in HALVES + COMPLEX]
    return pytest.mark.parametrize(("name", "dtype"), cases, ids=str)


every_optimiser_or_precision = and_one_in_every_precision(NAMES)
every_complex = pytest.mark.parametrize("dtype", COMPLEX, ids=str)


def limits(dtype):
    """Of the reals of a dtype."""
    return ml_dtypes.finfo(dtype) if dtype in HALVES else np.finfo(dtype)


def state_dtype(dtype):
    """What a dtype has its state in."""
    return np.dtype(np.float32) if dtype in HALVES else dtype


def normal(rng, shape, dtype=np.float64):
    """Random numbers of a dtype, complex ones with two parts."""
    numbers = rng.standard_normal(shape)
    if np.dtype(dtype) in COMPLEX:
        numbers = numbers + 1j * rng.standard_normal(shape)
    return np.asarray(numbers).astype(dtype)


def update(opt, g, params=None, **options):
    """opt.update(g), with parameters for the formulas that name them: zeros if not given, which no decay moves."""
    needed = opt._chain.needs_parameters
    return opt.update(g, params=(zeros_like(g) if params is None else params) if needed else None, **options)


def zeros_like(tree):
    if isinstance(tree, dict):
        return {key: zeros_like(leaf) for key, leaf in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(zeros_like, tree))
    if not isinstance(tree, np.ndarray):
        return 0.0
    return np.zeros(tree.shape, tree.dtype if tree.dtype.isnative else tree.dtype.newbyteorder("="))


def a_tree(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {"a": normal(rng, 4, dtype), "b": normal(rng, (2, 3), dtype)}


def frozen(value):
    """A deep, bitwise picture of nested dicts, lists, arrays and numbers."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(item) for item in value]
    if isinstance(value, (np.ndarray, float)):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tolist() if array.dtype == object else array.tobytes()
    return value


def same_bits(a, b):
    return frozen(a) == frozen(b)


def memory_of(opt):
    """A picture of all that an optimiser remembers between steps."""
    return opt.t, {slot: frozen(tree) for slot, tree in opt.state.items()}


def picture(opt, w):
    """Everything that a refused call must leave as it was."""
    return memory_of(opt), opt.skipped, frozen(w)


def assert_refused(call, message, opt, w):
    """`call` must raise in one clear line and leave everything as it was."""
    before = picture(opt, w)
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert picture(opt, w) == before
    assert "\n" not in str(caught.value)


def walk_together(opt, w, twin, v, seeds):
    """Good steps: where one has refused something before, it goes on like its twin, which never saw it."""
    for seed in seeds:
        opt.step(w, a_tree(seed))
        twin.step(v, a_tree(seed))
    assert same_bits(w, v)
    assert memory_of(opt) == memory_of(twin)


def start_alone(script, *arguments, **environment):
    """A Python process of its own that runs the script, with no setting of threads but those of `environment`."""
    env = {name: value for name, value in os.environ.items() if name != "FALLLINE_NUM_THREADS"} | environment
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_of(process, timeout=240):
    """What a process has said when it ends, on stdout and stderr; one that does not end in time is killed."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def output_of(process, timeout=240):
    """What a process prints that ends in time, well, and without a word on its stderr."""
    printed, complaints = end_of(process, timeout)
    assert (process.returncode, complaints) == (0, ""), f"ended with {process.returncode}: {complaints}"
    return printed


def run_alone(script, *arguments, **environment):
    """What the script prints in a Python process of its own."""
    return output_of(start_alone(script, *arguments, **environment))


@fl.rule
def signed_average(g, m=0, *, lr: fl.NonNegative = 1e-2, beta: fl.Fraction = 0.9):
    """A rule that is not built in."""
    m = beta * m + (1 - beta) * g
    return -lr * fl.sign(m), m


@fl.after
def signed_average_1(d, mean=0, *, rate: fl.Fraction = 0.5):
    """One that is in files of the first format."""
    mean = rate * mean + (1 - rate) * d
    return fl.where(mean > 0, fl.root(mean), mean), mean


@fl.rule
def gauged(g, x, t, m=0, start="x", last="g", n=fl.scalar(0.5), k=fl.scalar("lr", over="leaf"), *,
           lr: fl.NonNegative = 1e-2, beta: fl.Fraction = 0.9):
    """A rule with all that a formula may be made of: totals and norms of leaf and tree, one from the other, numbers as
    state, state that starts at the parameter or the gradient."""
    m = beta * m + (1 - beta) * g
    u = m / (1 + fl.norm(m, "leaf")) + (g - last) * fl.total(g * (x - start)) / (1 + fl.total(g * g))
    k = k + fl.norm(x, "leaf") * lr
    n = n * beta + fl.total(fl.abs(g)) * t
    return -lr * u / k / (1 + fl.norm(u)), m, start + 0, g + 0, n, k


def halving(t):
    return 0.5**t


def by_rank(path, shape):
    return "weights" if len(shape) == 2 else "rest"


RECIPES = {
    **fl.OPTIMIZERS,
    "chain": lambda **o: fl.chain(fl.clip_value(0.5), fl.l2(0.1), fl.Nadam(0.01), fl.weight_decay(0.01), **o),
    "own rule": lambda **o: fl.Optimizer(signed_average, **o),
    "clipped": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Momentum(0.01), fl.average(0.9), **o),
    "numbers": lambda **o: fl.Optimizer(gauged, **o),
    "schedule": lambda **o: fl.Adam(lr=halving, **o),
    "tree": lambda **o: fl.Adam(lr={"a": halving, "b": np.linspace(0.1, 0.2, 6).reshape(2, 3)}, **o),
    "partition": lambda **o: fl.partition({"weights": fl.Nadam(0.01), "rest": RECIPES["clipped"]()}, by_rank, **o),
    "around a partition": lambda **o: fl.chain(fl.clip_norm(0.5), RECIPES["partition"](), fl.weight_decay(0.01), **o),
    "mask": lambda **o: fl.mask({"a": True, "b": False}, RECIPES["chain"](), **o),
}
"""Optimizers that stand for all: the ten, a chain, a rule and a schedule of one's own, settings by leaf."""
COUPLED = ("clipped", "numbers", "around a partition", *OF_THE_TREE)  # whose leaves share a norm
every_recipe = pytest.mark.parametrize("recipe", RECIPES)


def walk(opt, w, steps):
    """Steps over parameters shaped like `a_tree`; at some a leaf has no gradient."""
    for seed in steps:
        g = a_tree(seed)
        opt.step(w, {**g, "b": None} if seed % 3 == 1 else g)


def stepped(recipe="Adam", steps=4, **options):
    """An optimizer that has taken some steps, and the parameters to which it came."""
    opt, w = RECIPES[recipe](**options), a_tree(100)
    walk(opt, w, range(steps))
    return opt, w


def everything_of(opt):
    """A picture of all that `state_dict` gives."""
    return frozen(opt.state_dict())
