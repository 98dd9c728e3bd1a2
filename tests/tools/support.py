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
from reference_formulas import SLOTS

NAMES = list(fl.OPTIMIZERS)
WITH_STATE = [name for name in NAMES if SLOTS[name]]
RATE_STARTS = ["Rprop"]  # of which lr is only where the rates start
WITH_RATE = [name for name in NAMES if "lr" in fl.OPTIMIZERS[name]().hyper and name not in RATE_STARTS]
WITH_EPS = [name for name in NAMES if "eps" in fl.OPTIMIZERS[name]().hyper]
WITH_EPS_ZERO = [name for name in WITH_EPS if name != "AdaDelta"]
EPS_SLOTS = {name: [k for k, start in fl.OPTIMIZERS[name].rule.slots.items() if start == "eps"] for name in NAMES}
WITHOUT_DECAY = {name: {k: 0.0 for k in fl.OPTIMIZERS[name].rule.hyper if k == "weight_decay"} for name in NAMES}
WITH_PARAMETER = [name for name in NAMES if "x" in fl.OPTIMIZERS[name].rule.given]  # in the formula
FADING = ["Adafactor"]  # whose steps are at most 1/√t
BY_SIGN = ["Lion", "Rprop"]  # which step by the sign of a number alone, infinite or not
POINTS = {"ScheduleFreeSGD": {"z"}, "ScheduleFreeAdamW": {"z"}, "Prodigy": {"x0"}}  # slots that are points like x
FOR_EVER = {"AdaGrad": {"v"}, "AMSGrad": {"v_max"}, "Rprop": {"rate"}, "Adafactor": {"v"},
            **POINTS}  # that zero gradients never let fade
RATE_INSIDE = {"Prodigy": {"s", "x0"}}  # slots that hold the rate, with "velocity" and "z"
# Where a formula loses digits by itself. RAdam: ρ is a difference of numbers near 2/(1 - beta2), and at step 5 good to
# 1e-10. AdaBelief: g - m under a constant gradient is what rounding left of it.
GOOD_TO = {"RAdam": 1e-10}
NOT_OF_CONSTANTS = ["AdaBelief"]
# What does not hold where a formula reduces, each with the reason. A sum over a leaf or the tree has an order that the
# leaves fix: one array or many differ in the last bits, and two sums may round to different steps where three leaves
# stand for one. A number of the tree has leaves depend on each other.
OF_THE_LEAF = ["LARS", "LAMB"]
OF_THE_TREE = ["Prodigy"]
# A parameter that is subnormal is 0 as a point of the state, which holds no subnormal numbers, and is drawn there.
SUBNORMAL_MOVES = ["ScheduleFreeSGD", "ScheduleFreeAdamW"]
WITH_POWERS_OF_T = [name for name in NAMES if "t" in fl.OPTIMIZERS[name].rule.given]

WHOLE_LEAF = [name for name in NAMES if fl.OPTIMIZERS[name].rule.whole_leaf]
# Generic tests of what rules of whole leaves do not promise. Complex dtypes and engine="eager", which
# they refuse, are left out everywhere.
NOT_OF_WHOLE_LEAVES = {
    "test_the_eager_engine_is_close_to_the_reference": "other arrays are refused",
    "test_the_eager_engine_keeps_within_its_stated_tolerances": "other arrays are refused",
    "test_the_short_way_the_long_way_and_the_reference_engine_give_the_same_bits": "they have no short way",
    "test_a_complex_parameter_gets_the_bits_of_the_pair_of_its_parts": "complex arrays are refused",
    "test_any_number_of_threads_gives_the_same_bits": "it has complex leaves too; see rules/test_matrix_rules.py",
    "test_one_array_or_many_get_the_same_bits": "the coordinates of an array are coupled",
    "test_propagate_lets_a_non_finite_gradient_through_at_its_own_coordinate": "the coordinates are coupled",
    "test_no_call_takes_memory_that_grows_with_the_parameters_but_the_state": "they compute with new arrays",
    "test_update_takes_one_new_array_for_each_leaf_and_no_more": "they compute with new arrays",
    "test_hundreds_of_random_steps_follow_the_formula": "slots of other shapes; see rules/test_matrix_rules.py",
    "test_a_rate_that_changes_acts_where_the_formula_has_it": "sums round off; see rules/test_matrix_rules.py",
    "test_12_the_correction_is_still_exact_at_large_step_counts": "it is about Adam's settings by their names",
    "test_the_correction_follows_an_assigned_step_count": "it is about Adam's settings by their names",
    "test_a_constant_gradient_gives_the_steps_worked_out_by_hand": "it is about rules of single coordinates",
}

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


def build(name, engine="auto", **keywords):
    return fl.OPTIMIZERS[name](engine=engine, **keywords)


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
