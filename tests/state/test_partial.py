"""A state for other leaves: what both have is taken over, the rest is said; leaves by other names; another dtype."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fallline as fl
from needed import need
from support import WITH_STATE, a_tree, everything_of, same_bits

MAKE = {
    "Adam": lambda: fl.Adam(0.1),
    "Prodigy": lambda: fl.Prodigy(),
    "LAMB": lambda: fl.LAMB(),
    "Muon": lambda: fl.Muon(0.1),
    "with an average": lambda: fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), fl.average(0.5)),
    "accumulate": lambda: fl.accumulate(2, fl.Momentum(0.1)),
    "partition": lambda: fl.partition({"x": fl.Adam(0.1), "y": fl.Momentum(0.1), "z": None},
                                      lambda path: {"a": "x", "b": "y", "c": "y", "d": "z"}[path.split("/")[-1]]),
    "mask": lambda: fl.mask(lambda path: not path.endswith("d"), fl.Adam(0.1)),
}  # fmt: skip
every = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def tree(paths, seed=0):
    return {path: a_tree(seed)["a"] + k for k, path in enumerate(paths)}


def stepped(make, paths, steps=3):
    opt, w = make(), tree(paths)
    for t in range(steps):
        opt.step(w, tree(paths, t))
    return opt, w


def leaves_of(opt, paths):
    """What a state dictionary has of leaves of these paths."""
    d = opt.state_dict()
    parts = d.get("parts", {"": d}).values()
    return {(n, slot, path): (array.tobytes(), own["leaves"][path])
            for n, own in enumerate(parts) if own
            for slot, arrays in own["state"].items() for path, array in arrays.items() if path in [*paths]}


@every
@pytest.mark.parametrize("by", ["state", "file"])
def test_what_both_have_is_taken_over_and_the_rest_is_said(make, by, path):
    theirs, w = stepped(make, "abd", 5)
    ours, v = stepped(make, "acd", 2)
    kept = leaves_of(ours, "c")
    theirs.save(path, w)
    if by == "state":
        report = ours.load_state_dict(theirs.state_dict(), strict=False)
    else:
        params, report = ours.load(path, strict=False)
        assert same_bits(params, w)
    assert report.missing == ("c",)
    assert report.left_over == ("b",)
    assert leaves_of(ours, "a") == leaves_of(theirs, "a")
    assert {key: value[0] for key, value in leaves_of(ours, "c").items()} == {k: v[0] for k, v in kept.items()}
    assert ours.t == theirs.t
    d = ours.state_dict()
    own = next(part for part in d.get("parts", {"": d}).values() if part and "c" in part["leaves"])
    assert own["leaves"]["c"]["t"] == 2 // (2 if make is MAKE["accumulate"] else 1)
    again = make()
    again.load_state_dict(d)
    for each, x in ((ours, v), (again, {path: leaf.copy() for path, leaf in v.items()})):
        each.step(x, tree("acd", 9))
        assert everything_of(each) == everything_of(ours)


@every
def test_a_state_of_all_the_leaves_here_leaves_nothing_to_say(make):
    theirs, _ = stepped(make, "abd")
    ours = make()
    ours.adapt(tree("abd"))
    assert ours.load_state_dict(theirs.state_dict(), strict=False) == ((), ())
    assert everything_of(ours) == everything_of(theirs)
    assert ours.load_state_dict(theirs.state_dict()) is None


@every
@pytest.mark.parametrize("known", [True, False])
def test_leaves_have_other_names_here(make, known, path):
    theirs, w = make(), {"old": tree("abd")}
    theirs.step(w, {"old": tree("abd", 1)})
    theirs.save(path, w)
    ours, v = make(), {"new": {"net": tree("abd", 0)}}
    for name, leaf in w["old"].items():
        v["new"]["net"][name][...] = leaf
    if known:
        ours.adapt(v)
    ours.load(path, rename=lambda path: path.replace("old/", "new/net/"))
    ours.step(v, {"new": {"net": tree("abd", 7)}})
    theirs.step(w, {"old": tree("abd", 7)})
    assert [leaf.tobytes() for leaf in v["new"]["net"].values()] == [leaf.tobytes() for leaf in w["old"].values()]


def test_a_single_array_may_become_a_leaf_of_a_tree():
    theirs, w = fl.Prodigy(), np.ones(3)
    theirs.step(w, w.copy())
    ours = fl.Prodigy()
    ours.adapt({"W": w})
    ours.load_state_dict(theirs.state_dict(), rename=lambda path: "W")
    assert ours.state["m"]["W"].tobytes() == theirs.state["m"].tobytes()
    assert float(ours.state["d"]) == float(theirs.state["d"])


@pytest.mark.parametrize(("how", "error", "message"), [
    ({"rename": lambda path: "a"}, ValueError, "rename must give each leaf a path of its own. Got 'a' for 'b' too"),
    ({"rename": lambda path: None}, TypeError, "rename must return the path of a leaf, a string. Got None for 'a'"),
    ({"rename": lambda path: path + "x"}, ValueError, "leaves of the state are not those here: missing 'a', 'b'"),
    ({"rename": lambda path: {"a": "b", "b": "a"}[path], "strict": False}, ValueError, "The state of a is for float64"),
    ({}, ValueError, "missing 'a'|unexpected"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_and_changes_nothing(how, error, message):
    theirs, w = fl.Adam(), {"a": np.ones(2), "b": np.ones(3)}
    theirs.step(w, w)
    ours = fl.Adam()
    v = {"a": np.ones(2), "b": np.ones(3)} if how else {"b": np.ones(3)}
    ours.step(v, {path: leaf.copy() for path, leaf in v.items()})
    before = everything_of(ours)
    with pytest.raises(error, match=message):
        ours.load_state_dict(theirs.state_dict(), **how)
    assert everything_of(ours) == before


def test_a_partial_state_needs_leaves_that_are_known():
    with pytest.raises(ValueError, match=r"strict=False compares a state with the leaves of Adam, which are not known"):
        fl.Adam().load_state_dict(stepped(MAKE["Adam"], "ab")[0].state_dict(), strict=False)


def test_a_leaf_of_another_part_is_refused_by_name():
    theirs, _ = stepped(MAKE["partition"], "abd")
    ours = fl.partition({"x": fl.Adam(0.1), "y": fl.Momentum(0.1), "z": None}, lambda path: "y")
    ours.adapt(tree("abc"))
    with pytest.raises(ValueError, match="gives 'a' to part 'y', and in the state it is of part 'x'"):
        ours.load_state_dict(theirs.state_dict(), strict=False)


# ---- another dtype ---------------------------------------------------------------------------------------------------

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


@pytest.mark.parametrize("name", WITH_STATE)
@pytest.mark.parametrize("old", FLOATS)
@pytest.mark.parametrize("new", FLOATS)
def test_state_goes_along_when_parameters_have_another_float_dtype(name, old, new):
    opt, w = fl.OPTIMIZERS[name](), {"a": np.linspace(0.5, 1.0, 4).astype(old)}
    opt.step(w, {"a": np.full(4, 0.25, old)})
    before = {slot: np.array(own["a"] if isinstance(own, dict) else own, np.float64) for slot, own in opt.state.items()}
    opt.adapt({"a": w["a"].astype(new)})
    kept = np.float32 if np.dtype(new).itemsize < 4 else new
    for slot, own in opt.state.items():
        if not isinstance(own, dict):  # one number of the tree
            assert float(own) == before[slot]
        elif own["a"].shape:
            assert own["a"].dtype == kept
            assert own["a"].tobytes() == before[slot].astype(kept).tobytes()
    assert opt.t == 1
    opt.step({"a": w["a"].astype(new)}, {"a": np.full(4, 0.25, new)})


def test_state_that_a_dtype_cannot_hold_is_refused_and_what_is_subnormal_there_becomes_0():
    opt = fl.Adam()
    w = {"a": np.ones(3, np.complex128)}
    opt.step(w, {"a": np.array([1e-160, 1e-22, 1j])})
    opt.adapt({"a": w["a"].astype(np.complex64)})
    assert (np.abs(opt.state["m"]["a"].real) > 1e-38).tolist() == [False, True, False]
    assert opt.state["m"]["a"].dtype == np.complex64
    opt.reset()
    opt.step(w, {"a": np.array([1e100, 1, 1])})
    before = everything_of(opt)
    with pytest.raises(ValueError, match=r"The state [mv] of a is too large for complex64, as the parameter has it"):
        opt.adapt({"a": w["a"].astype(np.complex64)})
    assert everything_of(opt) == before


@pytest.mark.parametrize("make", [lambda x: x, float, lambda x: np.array(x), lambda x: np.full(3, x)])
@pytest.mark.parametrize("name", ["Adam", "Prodigy", "Muon"])
def test_state_of_a_single_parameter_goes_along(name, make):
    opt, w = fl.OPTIMIZERS[name](), make(1.0)
    w = opt.step(w, make(0.5))
    new = np.asarray(w).astype(np.float32)[()]
    opt.adapt(new)
    assert opt.state["m" if name != "Muon" else "v"].dtype == np.float32
    opt.step(new, new)
    assert opt.t == 2


def test_what_was_gathered_of_other_calls_is_dropped_and_counts_are_kept():
    theirs, ours = fl.accumulate(4, fl.Momentum(1.0)), fl.accumulate(4, fl.Momentum(1.0))
    one, w, v = np.ones(1), {"a": np.zeros(1)}, {"a": np.zeros(1), "b": np.zeros(1)}
    theirs.step(w, {"a": one})
    for _ in range(11):  # two steps, and three calls of the next
        ours.step(v, {"a": one, "b": one})
    velocity = float(ours.state["velocity"]["b"][0])
    assert ours.load_state_dict(theirs.state_dict(), strict=False) == (("b",), ())
    assert (ours.t, ours.calls, ours.state_dict()["leaves"]["b"]["t"]) == (0, 1, 2)
    again = fl.accumulate(4, fl.Momentum(1.0))
    again.load_state_dict(ours.state_dict())
    u = {path: leaf.copy() for path, leaf in v.items()}
    for opt, x in ((ours, v), (again, u)):
        before = float(x["b"][0])
        for g in (None, None, None):
            opt.step(x, {"a": one, "b": g})
        assert x["b"] == before  # nothing of its own in this window
        assert opt.state["velocity"]["b"] == velocity
        assert opt.t == 1


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_state_of_other_libraries_goes_along_too(library):
    xp = need("torch") if library == "torch" else need("jax").numpy
    opt, w = fl.Adam(), {"a": xp.ones(3, dtype=xp.float32)}
    w = opt.step(w, {"a": xp.full((3,), 0.5, dtype=xp.float32)})
    m = np.asarray(opt.state["m"]["a"]).astype(np.float32)
    low = w["a"].to(xp.bfloat16) if library == "torch" else w["a"].astype(xp.bfloat16)
    opt.adapt({"a": low})
    assert np.asarray(opt.state["m"]["a"]).astype(np.float32).tobytes() == m.tobytes()
    opt.step({"a": low}, {"a": low})


# ---- averages from a step on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_an_average_begins_where_its_schedule_says(engine):
    from fallline.schedules import mean_since, piecewise

    mean = fl.chain(fl.SGD(0.1), fl.average(mean_since(3)), engine=engine)
    exponential = fl.chain(fl.SGD(0.1), fl.average(piecewise([0.0, 0.5], boundaries=[3])), engine=engine)
    w, v, points = np.array([1.0, 2.0]), np.array([1.0, 2.0]), []
    for t in range(9):
        mean.step(w, w.copy())
        exponential.step(v, v.copy())
        points.append(w.copy())
        np.testing.assert_allclose(mean.averaged, np.mean(points[min(t, 3) :], axis=0), rtol=1e-15)
        expected = points[t] if t < 3 else 0.5 * expected + 0.5 * points[t]  # noqa: F821  (of the step before)
        np.testing.assert_allclose(exponential.averaged, expected, rtol=1e-15)
