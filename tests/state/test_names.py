"""What leaves are called: keys as they are, unless two leaves could share a name; and as older files call them."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fallline as fl
from fallline._arrays.trees import flatten, former_paths, paths
from places import DATA
from support import drawn, frozen, same_bits

NAMES = {
    "a key that looks like an index": ({"0": 1.0, "-1": 1.0, "01": 1.0}, ["-1", "0", "01"]),
    "an index": ([1.0, (1.0,)], ["0", "1/0"]),
    "a slash in a key": ({"layer/w": 1.0, "layer/b": {"x/y": 1.0}}, ["layer/b/x/y", "layer/w"]),
    "a percent sign": ({"100%": 1.0, "%30": 1.0}, ["%30", "100%"]),
    "no text": ({"": 1.0, "a": {"": 1.0}}, ["%", "a/%"]),
    "keys of other types": ({0.5: 1.0, True: 1.0, ("a", 0): 1.0}, ["('a', 0)", "0.5", "True"]),
    "a number and its text": ({"0": 1.0, 0: 1.0, "b": 1.0}, ["%30", "0", "b"]),
    "a number and its text, of which one has no leaf": ({"0": 1.0, 0: None}, ["%30"]),
    "a number and its text in two dicts": ({"a": {"0": 1.0}, "b": {0: 1.0}}, ["a/0", "b/0"]),
    "a slash for a container": ({"a/b": 1.0, "a": {"b": 1.0}}, ["a%2Fb", "a/b"]),
    "a slash for two": ({"a/b/c": 1.0, "a/b": [1.0], "d/e": 1.0}, ["a%2Fb%2Fc", "a%2Fb/0", "d%2Fe"]),
    "no text and a percent sign": ({"": 1.0, "%": 1.0}, ["%", "%25"]),
}  # fmt: skip


@pytest.mark.parametrize("which", NAMES)
def test_keys_are_written_as_they_are_unless_two_leaves_could_share_a_name(which):
    tree, names = NAMES[which]
    assert sorted(paths(flatten(tree)[1])) == names
    opt, seen = fl.Momentum(), []
    opt.step(tree, tree)
    assert sorted(opt.state_dict()["state"]["velocity"]) == names
    fl.SGD(fl.by_path(lambda path: seen.append(path) or 0.5)).step(tree, tree)
    assert sorted(seen) == names
    labels = fl.partition({"x": fl.Momentum(), "y": fl.SGD()}, lambda path: "x" if path == names[0] else "y")
    labels.step(tree, tree)
    assert {name: list(part.state_dict()["leaves"]) for name, part in labels.parts.items()} == {
        "x": names[:1], "y": [path for path in paths(flatten(tree)[1]) if path != names[0]]}
    with pytest.raises(fl.NonFiniteGradient) as caught:
        opt.step(tree, flatten(tree)[1].unflatten([float("nan")] * len(names)))
    assert sorted(caught.value.paths) == names


texts = st.sampled_from(["", "0", "1", "%", "%30", "%2530", "a", "a/b", "a/0", "/", "/a", "a/", "b", "0/a", "a%2Fb"])
keys = texts | st.sampled_from([0, 1, -1, 0.5])
trees = st.recursive(
    st.none() | st.builds(lambda: np.ones(2)),
    lambda below: st.dictionaries(keys, below, max_size=4) | st.lists(below, max_size=3) | st.tuples(below),
    max_leaves=10)  # fmt: skip


@drawn(300)
@given(tree=trees)
def test_of_any_tree_no_two_leaves_share_a_name_whichever_of_them_are_there(tree):
    leaves, treedef = flatten(tree)
    names = paths(treedef)
    assert len({*names}) == len(names) == len(leaves)
    without = treedef.unflatten([None if k % 2 else leaf for k, leaf in enumerate(leaves)])
    assert paths(flatten(without)[1]) == names[::2]  # the parts of a partition have the names of the whole
    if names != [""]:
        assert sorted(names) == sorted(paths(flatten(dict.fromkeys(names, 0.0))[1]))


@pytest.mark.slow
@drawn(150)
@given(tree=trees, data=st.data())
def test_of_any_tree_a_state_with_the_names_of_older_files_goes_on(tree, data):
    leaves, treedef = flatten(tree)
    assume(leaves)
    former = {new: old for old, new in former_paths(treedef).items()}
    of_leaf = dict(zip(paths(treedef), range(len(leaves))))
    parts = {"x": fl.Adam(0.1), "y": fl.Momentum(), "z": None}
    made = data.draw(st.sampled_from([lambda: fl.Adam(0.1),
                                      lambda: fl.partition(parts, lambda path: "xyz"[of_leaf[path] % 3])]))
    opt = made()
    opt.step(tree, treedef.unflatten([np.full(2, k + 1.0) for k in range(len(leaves))]))
    now, before = opt.state_dict(), opt.state_dict()
    for part in before.get("parts", {"": before}).values():
        if part is not None:
            part["leaves"] = {former[path]: leaf for path, leaf in part["leaves"].items()}
            part["state"] = {slot: {former[path]: a for path, a in own.items()} for slot, own in part["state"].items()}
    for state in (now, before):
        waiting, known, adapted = made(), made(), made()
        start = copy.deepcopy(tree)
        known.step(start, start)
        for other in (waiting, known, adapted):
            other.load_state_dict(state)
        adapted.adapt(tree)
        g = treedef.unflatten([np.ones(2)] * len(leaves))
        waiting.update(g, params=tree)
        twin = made()
        twin.load_state_dict(now)
        twin.update(g, params=tree)
        assert frozen(known.state_dict()) == frozen(adapted.state_dict()) == frozen(now)
        assert frozen(waiting.state_dict()) == frozen(twin.state_dict())


def params():
    return {"layers": {"0": np.ones(2), "1": np.full(3, 2.0)}, "a/b": np.ones(1), "": np.zeros(2), "%30": np.ones(2)}


def doubled(w):
    return {key: doubled(item) if isinstance(item, dict) else 2 * item for key, item in w.items()}


def hexed(w):
    return [x.tobytes().hex() for x in (*w["layers"].values(), w["a/b"], w[""], w["%30"])]


def test_a_file_with_the_names_of_before_goes_on_to_the_same_bits():
    file = DATA / "keys-2.safetensors"
    assert b"%2F" in file.read_bytes()
    known = json.loads(file.with_suffix(".json").read_text())["next step"]
    opt, w = fl.load(file)
    before = copy.deepcopy(w)
    other, adapted = opt.fresh(), opt.fresh()
    other.step(params(), doubled(params()))  # knows its leaves
    other.load(file)
    adapted.load(file)
    adapted.adapt(before)
    for twin in (opt, other, adapted):
        w = copy.deepcopy(before)
        twin.step(w, doubled(w))
        assert hexed(w) == known
    assert {*opt.state_dict()["parts"]["x"]["leaves"]} == {"layers/0", "a/b", "%30"}


def test_a_run_with_the_names_of_before_goes_on_to_the_same_bits(path):
    shutil.copy(DATA / "run-2.safetensors", path)
    known = json.loads((DATA / "keys-2.json").read_text())["run"]

    def slope(w):
        return float(sum((x**2).sum() for x in (*w["layers"].values(), w["a/b"], w[""], w["%30"]))), doubled(w)

    run = fl.descend(slope, params(), fl.Adam(0.1), steps=5, checkpoint=path, progress=False)
    assert list(run.values) == known["values"]
    assert hexed(run.params) == known["params"]


def test_a_state_is_not_taken_for_one_with_the_names_of_before():
    """Where a leaf has the name that another had."""
    opt, w = fl.Momentum(0.1), {"0": np.ones(1), "%30": np.full(1, 2.0)}
    opt.step(w, {"0": np.ones(1), "%30": np.full(1, 2.0)})
    other = fl.Momentum(0.1)
    other.load_state_dict(opt.state_dict())
    other.step(copy.deepcopy(w), {"0": np.zeros(1), "%30": np.zeros(1)})
    opt.step(w, {"0": np.zeros(1), "%30": np.zeros(1)})
    assert same_bits(other.state["velocity"], opt.state["velocity"])


@pytest.mark.parametrize("made", [lambda: fl.Momentum(0.5),
                                  lambda: fl.partition({"x": fl.Momentum(0.5)}, lambda path: "x")])
def test_leaves_keep_their_state_where_another_that_comes_or_goes_changes_their_name(made):
    opt, w = made(), {"0": np.ones(1), "b": np.ones(1)}
    opt.step(w, {"0": np.full(1, 2.0), "b": np.full(1, 3.0)})
    for tree, held in (({**w, 0: np.ones(1)}, {"%30": [-1.0], "0": [0.0], "b": [-1.5]}),
                       ({"0": np.ones(1), "b": np.ones(1)}, {"0": [-1.0], "b": [-1.5]})):
        opt.adapt(tree)
        state = opt.state_dict()
        velocity = state.get("parts", {"x": state})["x"]["state"]["velocity"]
        assert {path: a.tolist() for path, a in velocity.items()} == held


def test_a_number_of_the_tree_stays_where_a_single_array_becomes_a_leaf_and_back():
    opt, w = fl.Prodigy(), np.ones(3)
    for _ in range(3):
        opt.step(w, w.copy())
    d = opt.state["d"].item()
    for tree in ({"a": w}, [w, w.copy()], w):
        opt.adapt(tree)
        assert opt.state["d"].item() == d != fl.Prodigy().hyper["d0"]
