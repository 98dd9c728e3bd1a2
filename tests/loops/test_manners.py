"""What both loops do around a step: notes, files, batches, a bar; and a run of `minimize` outlives a cut as one of
`descend` does."""

from __future__ import annotations

import csv
import signal
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from methods import PROBLEMS, methods, uphill
from needed import need
from support import drawn, end_of, frozen, memory_of, start_alone

START = np.array([1.5, -2.0])


class CutError(Exception):
    """What a run of the tests is cut by."""


def cut(at, function):
    """The function, which ends the run at its call of that number."""
    calls = []

    def counted(*args):
        calls.append(1)
        if len(calls) == at:
            raise CutError
        return function(*args)

    return counted


def bowl(w):
    return float(w @ w), 2 * w


def go(loop, steps=6, opt=None, x0=START, evaluate=bowl, **how):
    """The result of either loop, and the optimizer that was stepped."""
    opt = opt or fl.Momentum(0.05)
    if loop == "descend":
        return fl.descend(evaluate, x0, opt, steps=steps, **{"progress": False, **how}), opt
    run = fl.minimize(evaluate, x0, jac=True, method=opt, options={"maxiter": steps, "gtol": 0}, **how)
    return run, run.optimizer


both = pytest.mark.parametrize("loop", ["descend", "minimize"])


# ---- a run of `minimize` that is cut ---------------------------------------------------------------------------------


def everything(run):
    """A result to the bit; an optimizer that has not stepped may know its leaves already or not."""
    return {key: value.t and memory_of(value) if key == "optimizer" else frozen(value) for key, value in run.items()}


@pytest.mark.slow
@drawn(150)
@given(
    method=methods(),
    problem=st.sampled_from(list(PROBLEMS)),
    start=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    options=st.fixed_dictionaries({}, optional={"gtol": st.sampled_from([0.0, 1e-2, 1.0]), "ftol": st.just(1e-2),
                                                "xtol": st.just(1e-2)}),
    bounds=st.sampled_from([None, (-1, 0.5), [(0, None), (None, 1)]]),
    values=st.sampled_from(["with values", "with values", "without", "by batch", "differences"]),
    at=st.tuples(st.sampled_from(["evaluate", "callback", "column"]), st.integers(1, 40)),
    every=st.sampled_from([1, 3, None]),
)  # fmt: skip
def test_minimize_ends_after_a_cut_as_if_there_had_been_none(
    method, problem, start, options, bounds, values, at, every, tmp_path_factory
):
    opt, climbs = method
    fun = uphill(PROBLEMS[problem]) if climbs else PROBLEMS[problem]
    how = {"batches": [1.0, 0.5, 2.0]} if values == "by batch" else {}
    if values in ("without", "by batch"):
        options.pop("ftol", None)

    def evaluate(x, *batch):
        value, grad = fun(x)
        scale = batch[0] if batch else 1.0
        if values == "differences":
            return value
        return None if values == "without" else scale * value, scale * np.asarray(grad)

    def run(file, where, call):
        functions = {"evaluate": evaluate, "callback": lambda x: None, "column": lambda point: point.params[0]}
        if where:
            functions[where] = cut(call, functions[where])
        return fl.minimize(functions["evaluate"], start, jac="2-point" if values == "differences" else True,
                           method=opt, bounds=bounds, callback=functions["callback"],
                           columns={"first": functions["column"]}, options={"maxiter": 15, **options},
                           checkpoint=file, checkpoint_every=every if file else None, **how)  # fmt: skip

    expected = everything(run(None, None, 0))
    file = tmp_path_factory.mktemp("runs") / "run"
    try:
        assert everything(run(file, *at)) == expected  # over before it could be cut
    except CutError:
        assert everything(run(file, None, 0)) == expected
    assert everything(run(file, None, 0)) == expected  # a run that is through is told again


def test_a_point_that_is_not_finite_counts_the_same_after_a_cut(tmp_path):
    def evaluate(x):
        return (np.nan, x) if x[0] < 1.4 else (float(x @ x), 2 * x)

    def run(evaluate, file=None):
        return fl.minimize(evaluate, START, jac=True, method=fl.SGD(0.1, nonfinite="skip"), checkpoint=file)

    expected = everything(run(evaluate))
    for at in range(1, 9):
        try:
            run(cut(at, evaluate), tmp_path / f"{at}")
        except CutError:
            assert everything(run(evaluate, tmp_path / f"{at}")) == expected


def test_a_run_of_minimize_goes_further_with_a_higher_maxiter(tmp_path):
    go("minimize", 4, checkpoint=tmp_path / "run")
    assert everything(go("minimize", 9, checkpoint=tmp_path / "run")[0]) == everything(go("minimize", 9)[0])


def test_a_file_of_one_loop_is_none_of_the_other(tmp_path):
    for ours, other in (("descend", "minimize"), ("minimize", "descend")):
        go(ours, checkpoint=tmp_path / ours)
        with pytest.raises(fl.CheckpointError, match=f"holds no run of {other}"):
            go(other, checkpoint=tmp_path / ours)


def test_scipy_hands_them_over_among_its_options(tmp_path):
    minimize = need("scipy.optimize").minimize
    options = {"maxiter": 5, "checkpoint": tmp_path / "run", "history": tmp_path / "run.csv",
               "columns": {"first": lambda point: point.params[0]}, "batches": [1.0, 3.0]}  # fmt: skip

    def evaluate(x, batch):
        return float(x @ x) * batch, 2 * x * batch

    first = minimize(evaluate, START, jac=True, method=fl.SGD(0.01), options=options)
    again = minimize(evaluate, START, jac=True, method=fl.SGD(0.01), options={**options, "maxiter": 8})
    assert again.history["first"][:6].tolist() == first.history["first"].tolist()
    assert len(again.history["t"]) == 9
    assert (tmp_path / "run.csv").read_text().count("\n") == 10


# ---- notes -----------------------------------------------------------------------------------------------------------


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        head, *body = csv.reader(file)
    return head, [[float(entry) for entry in row] for row in body]


@both
def test_the_callers_columns_are_noted_beside_the_values(loop):
    torch = need("torch")
    opt = fl.Momentum(fl.schedules.linear(0.1, steps=9))
    columns = {"lr": lambda point: opt.lr(point.t), "norm": lambda point: torch.tensor(np.linalg.norm(point.grad)),
               "a, \"b\"\n": lambda point: np.float32(point.params[0])}  # fmt: skip
    run, _ = go(loop, opt=opt, columns=columns)
    assert list(run.history) == ["t", "value", *columns]
    count = 6 + (loop == "minimize")  # which looks at the point behind the last step too
    assert run.history["t"].tolist() == list(range(count))
    assert run.history["lr"].tolist() == [opt.lr(t) for t in range(count)]
    assert run.history["norm"].dtype == np.float64
    np.testing.assert_allclose(run.history["norm"] ** 2 / 4, run.history["value"], rtol=1e-15)


@both
def test_the_file_of_a_run_has_its_history_to_the_bit_and_can_be_watched(loop, tmp_path):
    seen = []

    def evaluate(w):
        seen.append(len(rows(tmp_path / "run.csv")[1]))
        return None if loop == "descend" else float(w @ w), 2 * w

    (tmp_path / "run.csv").write_text("of a run before\n")
    run, _ = go(loop, evaluate=evaluate, history=tmp_path / "run.csv", columns={"a": lambda point: point.params[0] / 3})
    assert seen == list(range(len(seen)))  # each row is there before the next point is evaluated
    head, body = rows(tmp_path / "run.csv")
    assert head == list(run.history)
    assert np.array(body).tobytes() == np.array(list(run.history.values()), np.float64).T.tobytes()


@both
def test_a_history_goes_on_with_its_run(loop, tmp_path):
    def run(evaluate=bowl, callback=None, **columns):
        return go(loop, 9, evaluate=evaluate, history=tmp_path / "run.csv", checkpoint=tmp_path / "run",
                  checkpoint_every=4, callback=callback,
                  columns={"a": lambda point: point.params[0], **columns})[0]  # fmt: skip

    expected = run()
    (tmp_path / "run").unlink()
    for at in (2, 6):
        with pytest.raises(CutError):
            run(callback=cut(at, lambda point: None))
    found = run(b=lambda point: 1.0)
    assert frozen({**expected.history, "b": found.history["b"]}) == frozen(found.history)
    assert np.isnan(found.history["b"]).sum() == (6 if loop == "descend" else 7)  # what nobody had asked for
    assert np.array(rows(tmp_path / "run.csv")[1])[:, :3].tolist() == np.transpose(
        list(expected.history.values())).tolist()


@both
@pytest.mark.parametrize(("how", "error", "message"), [
    ({"columns": ["a"]}, TypeError, "columns of {} must be a dict of functions of a point, by name. Got"),
    ({"columns": {"a": 1.0}}, TypeError, "columns of {} must be a dict of functions of a point, by name, such as"),
    ({"columns": {1: abs}}, TypeError, "columns of {} must be a dict of functions"),
    ({"columns": {"t": abs}}, ValueError, "columns of {} has 't', which is recorded already: choose another name"),
    ({"columns": {"a": lambda point: point.grad}}, TypeError, "Column 'a' of {} must return a real number. Got"),
    ({"history": True}, TypeError, "history of {} must be the path of a file. Got True"),
    ({"history": ""}, TypeError, "history of {} must be the path of a file. Got ''"),
    ({"history": "/no/folder/run.csv"}, FileNotFoundError, "history of {} cannot be written: No.*'/no/folder/run.csv'"),
    ({"history": "/"}, OSError, "history of {} cannot be written"),
    ({"checkpoint": 3}, TypeError, "checkpoint of {} must be the path of a file. Got 3"),
    ({"history": "./run", "checkpoint": "run"}, ValueError, "history and checkpoint of {} are two files"),
    ({"progress": "yes"}, ValueError, "progress of {} must be"),
    ({"batches": iter([1])}, TypeError, "batches of {} must be a sequence or a function"),
    ({"checkpoint_every": 3}, TypeError, "checkpoint_every of {} needs a file"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(loop, how, error, message):
    with pytest.raises(error, match=message.format(loop)):
        go(loop, **how)


def test_minimize_refuses_what_does_not_go_together(tmp_path):
    for how, options, message in (
        ({"batches": [1.0]}, {"ftol": 1e-3}, "ftol of minimize compares values, and those of different batches"),
        ({"checkpoint": tmp_path / "run"}, {"return_all": True}, "return_all of minimize keeps every x in memory"),
    ):
        with pytest.raises(ValueError, match=message):
            fl.minimize(lambda x, *batch: bowl(x), START, jac=True, options=options, **how)


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_minimize_gives_each_step_its_batch_before_the_other_arguments():
    given = []

    def fun(x, batch, scale):
        given.append(batch)
        return scale * float(((x - batch) ** 2).sum())

    def jac(x, batch, scale):
        assert batch == given[-1]
        return scale * 2 * (x - batch)

    run = fl.minimize(fun, START, 0.5, fl.SGD(0.3), jac, batches=[1.0, -1.0, 0.0], options={"maxiter": 7})
    assert given == [1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0, -1.0]
    np.testing.assert_array_equal(run.x, run.x_last)  # values of different batches say nothing of each other
    assert run.message.startswith("stopped at maxiter (7) with gradient norm")
    twice = fl.minimize(lambda x, batch, scale: (fun(x, batch, scale), scale * 2 * (x - batch)), START, 0.5,
                        fl.SGD(0.3), True, batches=lambda t: [1.0, -1.0, 0.0][t % 3], options={"maxiter": 7})
    np.testing.assert_array_equal(twice.x, run.x)


# ---- bounds ----------------------------------------------------------------------------------------------------------


@both
def test_a_leaf_that_a_gathered_gradient_moves_stays_within_bounds_where_it_has_none_now(loop):
    seen = []

    def evaluate(w):
        seen.append(w["a"].copy())
        return 0.0, {"a": -np.ones(2), "b": None if loop == "descend" and len(seen) % 2 == 0 else -np.ones(2)}

    x0 = {"a": np.zeros(2), "b": np.zeros(2)}
    run, _ = go(loop, 8, fl.accumulate(2, fl.SGD(0.4)), x0, evaluate, bounds=(-1, 0.5))
    last = run.params if loop == "descend" else run.x_last
    assert last["a"].tolist() == last["b"].tolist() == [0.5, 0.5]


def test_settings_by_coordinate_that_stay_are_worked_out_once_and_count_when_they_change():
    expected, w, g = np.ones(4), np.ones(4), np.full(4, 0.5)
    opt = fl.SGD(np.array([0.1, 0.2, 0.3, 0.4]))
    for lr in ([0.1, 0.2, 0.3, 0.4], None, None, [0.4, 0.3, 0.2, 0.1], None, [0.0, -0.0, 0.0, 1.0], None):
        if lr is not None:
            opt.lr = rates = np.array(lr)
        for _ in range(3):
            opt.step(w, g)
            expected -= rates * g
        np.testing.assert_array_equal(w, expected)
    signs = fl.chain(fl.SGD(1.0), fl.bounds(0.0, np.ones(4)))
    zero = np.zeros(4)
    for low in (0.0, -0.0, 0.0):
        signs.hyper["bounds.low"] = low
        for _ in range(3):
            zero[:] = -1
            signs.step(zero, g)
            assert np.signbit(zero).all() == (str(low)[0] == "-")


# ---- leaving, and coming back ----------------------------------------------------------------------------------------

LEFT = """
import sys
import numpy as np, fallline as fl

def value_and_grad(w):
    if sys.argv[2] == "signalled" and w[1] < 1 - 5 * 0.02:
        print("ready", flush=True)
        while True:
            sum(range(1000))
    return float(w @ w), np.ones(5)

how = dict(checkpoint=sys.argv[1], checkpoint_every=1000, progress=sys.argv[2] == "shown")
if sys.argv[3] == "descend":
    fl.descend(value_and_grad, np.arange(5.0), fl.SGD(0.02), steps=9, **how)
else:
    fl.minimize(value_and_grad, np.arange(5.0), jac=True, method=fl.SGD(0.02), options={"maxiter": 9}, **how)
"""


@pytest.mark.slow
@both
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_leave_says_where_it_is_and_the_bar_goes_on_from_there(loop, number, tmp_path):
    file = str(tmp_path / "run")
    process = start_alone(LEFT, file, "signalled", loop)
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(number)
    errors = end_of(process)[1].splitlines()
    said = f"{loop}: the run is saved in {file!r} after 5 steps. The same call goes on from there."
    assert (errors[-1] if number == signal.SIGINT else errors) == (said if number == signal.SIGINT else [said])
    need("rich")
    shown = end_of(start_alone(LEFT, file, "shown", loop))[1]
    assert "9/9" in shown
    assert "0/9" not in shown


@both
def test_an_error_of_the_callers_own_says_where_the_run_is(loop, tmp_path):
    with pytest.raises(CutError) as caught:
        go(loop, evaluate=cut(3, bowl), checkpoint=tmp_path / "run")
    assert caught.value.__notes__ == [f"{loop}: the run is saved in {str(tmp_path / 'run')!r} after 2 steps. The same "
                                      "call goes on from there."]


# ---- callbacks that set, other leaves, other places ------------------------------------------------------------------


@both
@pytest.mark.parametrize("end", ["error", "stop", "column"])
def test_what_a_callback_has_set_where_a_run_was_cut_is_set_once(loop, end, tmp_path):
    def run(file=None, cuts=False):
        opt = fl.Momentum(0.05)

        def callback(*given):
            t = seen[-1]
            if t == 3:
                target = opt if loop == "descend" else steps[-1]
                target.lr = target.lr * 0.5
                if cuts and end == "error":
                    raise CutError
                if end == "stop":
                    raise StopIteration

        def column(point):
            seen.append(point.t)
            if end == "column" and point.t == 4 and cuts:
                raise CutError
            return 0.0

        seen, steps = [], []
        if loop == "minimize":  # whose optimizer is a copy: it is that of the walk
            from fallline._loops import minimize

            class Kept(minimize.Walk):
                def __init__(self, *args, **named):
                    super().__init__(*args, **named)
                    steps.append(self.optimizer)

            patch = pytest.MonkeyPatch()
            patch.setattr(minimize, "Walk", Kept)
        try:
            found, opt = go(loop, 6, opt, callback=callback, columns={"c": column}, checkpoint=file,
                            checkpoint_every=100 if file else None)  # fmt: skip
        finally:
            if loop == "minimize":
                patch.undo()
        return frozen(found.params if loop == "descend" else found.x_last), opt.lr

    expected = run()
    if end == "stop":
        assert run(tmp_path / "run") == expected
    else:
        with pytest.raises(CutError):
            run(tmp_path / "run", cuts=True)
    assert run(tmp_path / "run") == expected


def test_a_callback_may_take_a_plateau_away_or_give_one():
    opt = fl.SGD(fl.schedules.plateau(0.1))
    run = fl.descend(bowl, START, opt, steps=6, progress=False,
                     callback=lambda point: setattr(opt, "lr", 0.01) if point.t == 3 else None)  # fmt: skip
    assert run.t == 6
    new = fl.schedules.plateau(0.1)
    fl.descend(bowl, START, opt, steps=6, progress=False,
               callback=lambda point: setattr(opt, "lr", new) if point.t == 8 else None)  # fmt: skip
    assert opt.lr.heard[-1] > 0


def test_a_lower_maxiter_than_steps_taken_ends_where_the_run_stands(tmp_path):
    go("minimize", 8, checkpoint=tmp_path / "run")
    run, _ = go("minimize", 3, checkpoint=tmp_path / "run")
    assert run.nit == 8
    assert run.message.startswith("stopped at maxiter (3)")


@both
def test_an_overflow_of_pythons_arithmetic_is_noted_and_no_column_is_asked(loop):
    def evaluate(w):
        return (float(10) ** 400 if w[0] < 1.4 else 1.0), np.ones(2)

    for nonfinite in ("raise", "skip", "propagate"):
        columns = {"largest": lambda point: abs(point.grad).max()}
        run, _ = go(loop, 9, fl.SGD(0.1, nonfinite=nonfinite), evaluate=evaluate, columns=columns)
        assert "diverged" in run.message
        assert "OverflowError" in run.message
        assert run.history["value"].tolist() == [1.0, 1.0, np.inf]
        assert np.isnan(run.history["largest"]).tolist() == [False, False, True]


@both
def test_files_stay_where_they_were_asked_for_when_the_run_goes_elsewhere(loop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kept.csv").write_text("")
    (tmp_path / "run.csv").symlink_to(tmp_path / "kept.csv")
    go(loop, callback=lambda point: monkeypatch.chdir(tmp_path / "elsewhere"), checkpoint="run", history="run.csv",
       checkpoint_every=1)  # fmt: skip
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "run.csv").is_symlink()
    assert len(rows(tmp_path / "kept.csv")[1]) == 6 + (loop == "minimize")
    again, _ = go(loop, checkpoint=tmp_path / "run")
    assert again.history["t"].size == 6 + (loop == "minimize")


def test_leaves_that_a_mask_leaves_alone_may_be_anything():
    start = {"w": np.array([3.0]), "name": "left", "k": np.array([7])}
    opt = fl.mask(lambda path: path == "w", fl.SGD(0.3))
    bounds = {"w": (0, 1), "name": (None, None), "k": (None, None)}
    for limits in (None, bounds, (0, 1)):
        run = fl.descend(lambda w: (float(w["w"] @ w["w"]), {"w": -np.ones(1), "name": None, "k": None}), start, opt,
                         steps=3, bounds=limits, progress=False)  # fmt: skip
        assert run.params["name"] == "left"
        assert run.params["k"].tolist() == [7]
        assert run.params["w"].tolist() == pytest.approx([3.9] if limits is None else [1.0])


@both
def test_a_bound_beyond_a_dtype_is_none(loop):
    x0 = np.ones(2, np.float32)
    run, _ = go(loop, 3, fl.SGD(0.5), x0, lambda w: (0.0, -np.ones_like(w)), bounds=[(-1e300, 1.25), (None, 1e300)])
    assert (run.params if loop == "descend" else run.x_last).tolist() == [1.25, 2.5]
