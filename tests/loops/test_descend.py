"""`fl.descend`: what it steps, what it records, why it stops and what it shows."""

import collections
import math
import os
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest

import fallline as fl
from fallline._loops.descend import Status
from needed import need


def bowl(w):
    return float(w @ w), 2 * w


START = np.array([3.0, -4.0])


def run(**options):
    options = {"steps": 50, "progress": False, **options}
    return fl.descend(bowl, START, fl.SGD(lr=0.25), **options)


def at_step(k, value, grad):
    """A function whose k-th call returns something of its own."""
    calls = []

    def value_and_grad(w):
        calls.append(1)
        return (value, grad) if len(calls) == k else bowl(w)

    return value_and_grad


# ---- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fl.OPTIMIZERS)
def test_descend_is_the_loop_written_by_hand(name):
    by_hand, optimizer, w, values = fl.OPTIMIZERS[name](), fl.OPTIMIZERS[name](), START.copy(), []
    for _ in range(20):
        value, grad = bowl(w)
        values.append(value)
        w = by_hand.step(w, grad)
    result = fl.descend(bowl, START, optimizer, steps=20, progress=False)
    np.testing.assert_array_equal(result.params, w)
    np.testing.assert_array_equal(result.values, values)
    assert result.values.dtype == np.float64
    assert result.t == optimizer.t == 20


def test_the_callers_parameters_are_left_alone():
    given = {"W": np.ones((2, 2)), "b": [np.zeros(2), 1.5]}

    def value_and_grad(p):
        return float((p["W"] ** 2).sum()), {"W": 2 * p["W"], "b": [np.ones(2), 1.0]}

    result = fl.descend(value_and_grad, given, fl.SGD(lr=0.1), steps=3, progress=False)
    np.testing.assert_array_equal(given["W"], np.ones((2, 2)))
    np.testing.assert_array_equal(given["b"][0], np.zeros(2))
    assert given["b"][1] == 1.5
    assert result.params["b"][1] == pytest.approx(1.2)
    assert result.params["W"] is not given["W"]


def test_a_second_run_goes_on_where_the_first_stopped():
    batches = [np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([2.0, 1.0])]
    options = {"batches": batches, "progress": False}

    def value_and_grad(w, batch):
        return float(((w - batch) ** 2).sum()), 2 * (w - batch)

    whole = fl.descend(value_and_grad, START, fl.Adam(lr=0.1), steps=14, **options)
    optimizer = fl.Adam(lr=0.1)
    first = fl.descend(value_and_grad, START, optimizer, steps=5, **options)
    second = fl.descend(value_and_grad, first.params, optimizer, steps=9, **options)
    np.testing.assert_array_equal(second.params, whole.params)
    np.testing.assert_array_equal(np.concatenate([first.values, second.values]), whole.values)
    assert (first.t, second.t) == (5, 14)


@pytest.mark.parametrize("batches", [["a", "b", "c"], ("a", "b", "c"), lambda step: "abc"[step % 3]])
def test_batches_are_a_sequence_gone_through_in_order_again_and_again_or_a_function_of_the_step(batches):
    seen = []

    def value_and_grad(w, batch):
        seen.append(batch)
        return bowl(w)

    fl.descend(value_and_grad, START, fl.SGD(), batches=batches, steps=7, progress=False)
    assert "".join(seen) == "abcabca"


def test_the_batch_function_gets_the_step_number_from_0():
    steps = []
    fl.descend(lambda w, b: bowl(w), START, fl.SGD(), batches=steps.append, steps=4, progress=False)
    assert steps == [0, 1, 2, 3]


def test_no_steps_change_nothing():
    result = run(steps=0)
    np.testing.assert_array_equal(result.params, START)
    assert (result.t, len(result.values), result.status) == (0, 0, Status.STEPS)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy"])
@pytest.mark.parametrize("kind", ["float", "numpy scalar", "0-d array"])
def test_values_may_be_numbers_or_0_d_arrays_of_any_library(library, kind):
    xp = need(library) if library != "numpy" else np
    w = xp.asarray([3.0, -4.0])

    def value_and_grad(w):
        value = (w * w).sum()
        return {"float": float, "numpy scalar": np.float32, "0-d array": xp.asarray}[kind](value), 2 * w

    result = fl.descend(value_and_grad, w, fl.SGD(lr=0.25), steps=3, progress=False)
    np.testing.assert_array_equal(result.values, [25.0, 6.25, 1.5625])
    np.testing.assert_array_equal(np.asarray(result.params), [0.375, -0.5])
    np.testing.assert_array_equal(np.asarray(w), [3.0, -4.0])
    assert type(result.params) is type(w)


def test_torch_parameters_that_require_grad_can_be_differentiated_in_the_loop():
    torch = need("torch")
    w = torch.tensor([3.0, -4.0], requires_grad=True)

    def value_and_grad(w):
        loss = (w * w).sum()
        return loss, torch.autograd.grad(loss, w)[0]

    result = fl.descend(value_and_grad, w, fl.SGD(lr=0.25), steps=3, progress=False)
    assert result.params.requires_grad
    np.testing.assert_array_equal(result.params.detach().numpy(), [0.375, -0.5])
    np.testing.assert_array_equal(w.detach().numpy(), [3.0, -4.0])


def test_jax_value_and_grad_serves_as_it_is():
    jax = need("jax")
    value_and_grad = jax.jit(jax.value_and_grad(lambda p: (p["w"] ** 2).sum()))
    result = fl.descend(value_and_grad, {"w": jax.numpy.asarray([3.0, -4.0])}, fl.SGD(lr=0.25), steps=2, progress=False)
    np.testing.assert_array_equal(result.values, [25.0, 6.25])


def test_python_floats_are_parameters_too():
    result = fl.descend(lambda w: (w * w, 2 * w), 3.0, fl.SGD(lr=0.25), steps=2, progress=False)
    assert result.params == 0.75
    assert isinstance(result.params, float)


# ---- why it stops ----------------------------------------------------------------------------------------------------


def test_it_stops_after_the_steps_asked_for():
    result = run(steps=5)
    assert (result.status, result.t, len(result.values)) == (Status.STEPS, 5, 5)
    assert result.message == "took all 5 steps: raise steps if the values still fall"
    assert bowl(result.params)[0] < result.values[-1]


def test_it_stops_at_the_target_with_the_parameters_that_reached_it():
    result = run(target=25 / 4**3)
    assert (result.status, result.t, len(result.values)) == (Status.TARGET, 3, 4)
    assert bowl(result.params)[0] == result.values[-1] == 25 / 4**3
    assert "0.390625 after 3 steps" in result.message


def test_it_stops_when_patience_runs_out():
    values = iter([5.0, 4.0, 4.5, 3.0, 3.0, 9.0, 3.1, 1.0])
    optimizer = fl.SGD()
    result = fl.descend(lambda w: (next(values), w), START, optimizer, steps=50, patience=3, progress=False)
    assert result.status is Status.PATIENCE
    assert result.values.tolist() == [5.0, 4.0, 4.5, 3.0, 3.0, 9.0, 3.1]
    assert result.message == "no value below 3 in the last 3 steps: lower lr to go deeper, or raise patience"
    assert optimizer.t == 6


def test_the_callback_sees_every_point_and_may_stop():
    seen = []

    def callback(point):
        seen.append((point.t, point.params.copy(), point.value, point.grad.copy()))
        if point.t == 2:
            raise StopIteration

    result = run(callback=callback)
    assert (result.status, result.t) == (Status.CALLBACK, 2)
    assert [t for t, *_ in seen] == [0, 1, 2]
    for t, params, value, grad in seen:
        np.testing.assert_array_equal(params, START / 2**t)
        assert value == 25 / 4**t == result.values[t]
        np.testing.assert_array_equal(grad, 2 * params)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_value_that_is_not_finite_is_divergence(value):
    optimizer = fl.SGD(lr=0.25)
    result = fl.descend(at_step(3, value, START), START, optimizer, steps=9, target=-1e300, progress=False)
    assert (result.status, result.t, len(result.values)) == (Status.DIVERGED, 2, 3)
    assert result.message.startswith(f"diverged after 2 steps: the value is {float(value)}; lower lr")
    np.testing.assert_array_equal(result.params, START / 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_divergence(bad):
    result = fl.descend(at_step(3, 1.0, np.array([bad, 1.0])), START, fl.SGD(lr=0.25), steps=9, progress=False)
    assert (result.status, result.t, len(result.values)) == (Status.DIVERGED, 2, 3)
    assert "gradient" in result.message
    np.testing.assert_array_equal(result.params, START / 4)


def test_parameters_that_end_up_not_finite_are_divergence():
    result = fl.descend(lambda w: (1.0, np.array([1e300, 0.0])), START, fl.SGD(lr=1e9), steps=1, progress=False)
    assert result.status is Status.DIVERGED
    assert "the parameters are not finite" in result.message


def test_an_overflow_in_python_arithmetic_is_divergence():
    result = fl.descend(lambda w: (w**4, 4 * w**3), 3.0, fl.SGD(lr=2.0), steps=100, progress=False)
    assert result.status is Status.DIVERGED
    assert "OverflowError" in result.message
    assert result.values[-1] == math.inf


def test_a_run_that_diverges_names_what_to_lower():
    assert "lower eps" in fl.descend(at_step(1, math.nan, START), START, fl.AdaDelta(), steps=9, progress=False).message


def test_with_skip_a_run_goes_on_past_what_is_not_finite():
    optimizer = fl.SGD(lr=0.25, nonfinite="skip")
    result = fl.descend(at_step(3, math.nan, np.full(2, math.nan)), START, optimizer, steps=5, progress=False)
    assert (result.status, len(result.values), optimizer.t) == (Status.STEPS, 5, 4)
    np.testing.assert_array_equal(result.params, START / 2**4)
    at_the_end = fl.descend(
        at_step(5, math.nan, np.full(2, math.nan)), START, optimizer.fresh(), steps=5, progress=False
    )
    assert at_the_end.status is Status.DIVERGED


def test_with_propagate_the_parameters_tell():
    optimizer = fl.SGD(nonfinite="propagate")
    result = fl.descend(lambda w: (1.0, np.full(2, math.nan)), START, optimizer, steps=5, progress=False)
    assert (result.status, len(result.values)) == (Status.DIVERGED, 5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, fl.NonFiniteGradient])
def test_exceptions_of_the_callers_functions_pass_through(error):
    def value_and_grad(w):
        raise error("mine")

    with pytest.raises(error, match="mine"):
        fl.descend(value_and_grad, START, fl.SGD(), steps=5, progress=False)
    with pytest.raises(error, match="mine"):
        run(callback=value_and_grad)


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ({"steps": 2.5}, TypeError, "steps of descend must be a whole number ≥ 0. Got 2.5"),
    ({"steps": -1}, ValueError, "steps of descend must be a whole number ≥ 0. Got -1"),
    ({"patience": 0}, ValueError, "patience of descend must be a whole number ≥ 1. Got 0"),
    ({"target": "low"}, TypeError, "target of descend must be a number. Got str"),
    ({"progress": "yes"}, ValueError, "progress of descend must be \"auto\", True or False. Got 'yes'"),
    ({"batches": []}, ValueError, "at least one batch"),
    ({"batches": iter([1, 2])}, TypeError, "must be a sequence or a function of the step number. Got list_iterator"),
    ({"batches": {"x": 1}}, TypeError, "Got dict"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda case: str(case)[:24])
def test_bad_arguments_are_refused_in_one_sentence(options, error, message):
    with pytest.raises(error) as caught:
        run(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (1.0, "must return a pair (value, gradient). Got float"),
        ((1.0, START, 2), "must return a pair (value, gradient). Got tuple"),
        ((START, 1.0), "the value a real number. Got ndarray of shape (2,)"),
        ((START[:1], START), "Got ndarray of shape (1,)"),
        (("1.0", START), "Got str"),
        ((1j, START), "Got complex"),
        ((np.complex64(1), START), "Got complex"),
        (([None], START), "Got list"),
    ],
)
def test_what_value_and_grad_returns_is_checked(returned, message):
    with pytest.raises(TypeError) as caught:
        fl.descend(lambda w: returned, START, fl.SGD(), steps=1, progress=False)
    assert "value_and_grad of descend" in str(caught.value)
    assert message in str(caught.value)


def test_an_optimizer_is_required():
    with pytest.raises(TypeError, match="optimizer of descend must be an Optimizer such as"):
        fl.descend(bowl, START, "adam", steps=1, progress=False)


# ---- the progress bar ------------------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent("""
    import sys
    import fallline as fl
    run = fl.descend(lambda w: (w * w, 2 * w), 3.0, fl.SGD(lr=1e-3), steps=2000, progress={progress})
    print(run.t, "rich" in sys.modules)
""")


def in_a_pipe(progress):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(progress=progress)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def in_a_terminal(progress):
    """stdout of the run, and what reached the terminal that its stderr is."""
    ours, theirs = need("pty").openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(progress=progress)],
            stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # Linux's end of file for a terminal that nobody holds
                break
            if not chunk:
                break
            shown += chunk
        out = process.communicate()[0].decode()
        assert process.returncode == 0, shown
        return out, shown.decode()
    finally:
        os.close(ours)


def test_the_bar_is_silent_when_stderr_is_no_terminal():
    assert in_a_pipe('"auto"') == ("2000 False\n", "")


def test_the_bar_is_shown_when_stderr_is_a_terminal():
    need("rich")
    out, shown = in_a_terminal('"auto"')
    assert out == "2000 True\n"
    assert "2000/2000" in shown
    assert "value 0.003" in shown


def test_no_bar_where_none_is_wanted():
    assert in_a_terminal("False") == ("2000 False\n", "")


def test_a_bar_asked_for_is_shown_wherever_stderr_goes():
    need("rich")
    assert "2000/2000" in in_a_pipe("True")[1]


def test_a_bar_asked_for_without_rich_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r'pip install "fallline\[race\]"'):
        run(progress=True)
    assert run(steps=2).t == 2


@pytest.mark.parametrize("made", [
    lambda a: {"a": type("Own", (collections.defaultdict,), {})(list, w=a)}, lambda a: types.SimpleNamespace(w=a),
    lambda a: type("Own", (list,), {})([a]), lambda a: collections.UserList([a]),
])  # fmt: skip
def test_what_is_no_tree_is_refused_and_the_callers_arrays_are_left_alone(made):
    a = np.ones(2)
    with pytest.raises(TypeError, match=r"must be an array of .* Got .*: pass"):
        fl.descend(lambda w: (0.0, w), made(a), fl.SGD(0.1), steps=3, progress=False)
    assert a.tolist() == [1.0, 1.0]


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"value_and_grad of descend must be a function of the parameters. Got"):
        fl.descend(np.ones(2), lambda w: (0.0, w), fl.SGD(), steps=3)


def test_a_masked_value_is_no_number():
    with pytest.raises(TypeError, match=r"the value a real number. Got MaskedConstant"):
        fl.descend(lambda w: (np.ma.masked, w), np.ones(2), fl.SGD(), steps=3, target=0.5, progress=False)
