"""Where a tree is not like the parameters, the message says where, what must be there and what came."""

from __future__ import annotations

import enum
from collections import OrderedDict, namedtuple

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from support import drawn, picture

Pair = namedtuple("Pair", "a b")
Other = namedtuple("Other", "a b")


class Key(enum.StrEnum):
    a = "a"


def leaf():
    return np.ones(2)


# The parameters, the gradients, and what the message must say of the one place where they differ.
DIFFERENT = {
    "a tuple for a list": ({"l": [leaf(), leaf()]}, {"l": (leaf(), leaf())}, "'l' must be a list, not a tuple"),
    "a list for a tuple": ([(leaf(),)], [[leaf()]], "'0' must be a tuple, not a list"),
    "a tuple for a namedtuple": ({"l": Pair(leaf(), leaf())}, {"l": (leaf(), leaf())},
                                 r"'l' must be a Pair \(a namedtuple\), not a tuple"),
    "a namedtuple for a tuple": ({"l": (leaf(), leaf())}, {"l": Pair(leaf(), leaf())},
                                 r"'l' must be a tuple, not a Pair \(a namedtuple\)"),
    "another namedtuple": ({"l": Pair(leaf(), leaf())}, {"l": Other(leaf(), leaf())},
                           "'l' must be a Pair .*not an Other"),
    "None left out": ({"l": {"w": leaf(), "bias": None}}, {"l": {"w": leaf()}}, r"missing 'l/bias' \(None\)"),
    "None left out at the top": ({"w": leaf(), "bias": None}, {"w": leaf()}, r"missing 'bias' \(None\)"),
    "an array for None": ({"l": {"w": leaf(), "bias": None}}, {"l": {"w": leaf(), "bias": leaf()}},
                          "'l/bias' must be None, not an ndarray"),
    "an empty list left out": ({"l": {"w": leaf(), "bias": []}}, {"l": {"w": leaf()}}, r"missing 'l/bias' \(a list\)"),
    "an empty dict for a list": ({"w": leaf(), "bias": []}, {"w": leaf(), "bias": {}},
                                 "'bias' must be a list, not a dict"),
    "a subtree left out": ({"a": {"b": leaf()}, "c": leaf()}, {"c": leaf()}, r"missing 'a' \(a dict\)"),
    "a leaf left out": ({"a": [leaf(), leaf()]}, {"a": [leaf()]}, "missing 'a/1'"),
    "a leaf too many": ({"a": [leaf()]}, {"a": [leaf(), leaf()]}, "unexpected 'a/1'"),
    "a leaf for a subtree": ({"a": {"b": leaf()}}, {"a": leaf()}, "'a' must be a dict, not an ndarray"),
    "a subtree for a leaf": ({"a": {"b": leaf()}}, {"a": {"b": [leaf()]}}, "'a/b' must be one array, .*Got a list"),
    "None for a subtree": ({"a": {"b": leaf()}}, {"a": None}, "'a' must be a dict, not None"),
    "a number as key": ({"a": {"0": leaf()}}, {"a": {0: leaf()}}, r"missing 'a/%30' \(the key '0'\); unexpected 'a/0'"),
    "a text as key": ({"a": {0: leaf()}}, {"a": {"0": leaf()}}, r"missing 'a/0'; unexpected 'a/%30' \(the key '0'\)"),
    "two at once": ([{"a": leaf()}, (leaf(),)], [{"b": leaf()}, [leaf()]],
                    "missing '0/a'; unexpected '0/b'; '1' must be a tuple, not a list"),
}  # fmt: skip


@pytest.mark.parametrize("different", DIFFERENT)
@pytest.mark.parametrize("steps", [0, 1])
def test_the_place_of_a_difference_is_named_with_what_must_be_there_and_what_came(different, steps):
    w, wrong, said = DIFFERENT[different]
    for opt in (fl.SGD(), fl.mask(lambda path: True, fl.SGD())):
        for _ in range(steps):
            opt.step(w, w)
        before = picture(opt, w)
        for what, call in (("grad", lambda opt=opt: opt.step(w, wrong)),
                           ("out", lambda opt=opt: opt.update(w, params=w, out=wrong)),
                           ("param", lambda opt=opt: steps and opt.step(wrong, w))):
            if what == "param" and not steps:
                continue
            with pytest.raises((TypeError, ValueError), match=f"(?i){what}.* {said}") as caught:
                call()
            assert "\n" not in str(caught.value)
        assert picture(opt, w) == before


def test_an_ordered_dict_and_a_dict_are_one_tree():
    w = {"b": leaf(), "a": leaf()}
    fl.SGD(1.0).step(w, OrderedDict(b=leaf(), a=2 * leaf()))
    assert (w["a"].tolist(), w["b"].tolist()) == ([-1.0, -1.0], [0.0, 0.0])


UPPER = {
    "a leaf left out": ({"a": {"b": leaf(), "c": leaf()}}, {"a": {"b": ...}}, "missing 'a/c'"),
    "a leaf too many": ({"a": {"b": leaf()}}, {"a": {"b": ..., "c": ...}}, "unexpected 'a/c'"),
    "a list for a tuple": ({"a": (leaf(), leaf()), "b": leaf()}, {"a": [..., ...], "b": ...},
                           "'a' must be a tuple, not a list"),
    "a number for a text": ({"a": {"0": leaf()}}, {"a": {0: ...}},
                            r"missing 'a/%30' \(the key '0'\); unexpected 'a/0'"),
    "a subtree for a leaf": ({"a": leaf()}, {"a": {"b": ...}}, "'a' must be one array, not a dict"),
}  # fmt: skip


@pytest.mark.parametrize("different", UPPER)
def test_the_place_is_named_where_a_tree_of_settings_or_labels_differs(different):
    w, wrong, said = UPPER[different]
    for make, value in ((fl.SGD, 0.5), (lambda label: fl.partition({"all": fl.SGD()}, label), "all"),
                        (lambda by: fl.mask(by, fl.SGD()), True)):  # fmt: skip
        tree = optree.tree_map(lambda _, value=value: value, wrong)
        with pytest.raises(ValueError, match=f"must have the structure of the parameters .*Got .*: {said}"):
            make(tree).step(w, w)
    opt = fl.SGD()
    opt.step(w, w)
    with pytest.raises(ValueError, match=said):
        opt.lr = optree.tree_map(lambda _: 0.5, wrong)
    assert (opt.lr, opt.t) == (1e-3, 1)


# ---- random trees with one random difference -------------------------------------------------------------------------

keys = st.sampled_from(["a", "b", "layer", 0, 1])


def inner(children):
    return (st.dictionaries(keys, children, min_size=1, max_size=3) | st.lists(children, min_size=1, max_size=3)
            | st.lists(children, min_size=1, max_size=2).map(tuple) | st.builds(Pair, children, children))


leaves = st.builds(leaf)
trees = inner(st.recursive(leaves | st.none() | st.just([]), inner, max_leaves=8))


def places(tree, path=()):
    yield path, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(tree, path, new):
    """The tree with something else at a place; left out if that is `...`."""
    if not path:
        return new
    first, *rest = path
    if isinstance(tree, dict):
        changed = {key: put(item, rest, new) if key == first else item for key, item in tree.items()}
        return {key: item for key, item in changed.items() if item is not ...}
    items = [put(item, rest, new) if k == first else item for k, item in enumerate(tree)]
    return type(tree)(*items) if isinstance(tree, Pair) else type(tree)(items)


def differing(node):
    """What may stand in the place of a part of a tree, each with the words for what came."""
    if isinstance(node, np.ndarray):
        return [({"x": leaf()}, "dict"), ([leaf()], "list")]
    other = {dict: [list, tuple], list: [tuple, dict], tuple: [list, dict], Pair: [tuple, list], type(None): [list]}
    made = [(kind(), kind.__name__) for kind in other[type(node)]]
    if isinstance(node, (list, tuple)):
        made = [(list(node), "list"), (tuple(node), "tuple"), *made]
    return [*made, (leaf(), "ndarray"), *([] if node is None else [(None, "None")])]


@pytest.mark.slow
@drawn(150)
@given(data=st.data(), w=trees)
def test_of_any_tree_with_one_difference_the_message_names_the_place_and_what_came(data, w):
    path, node = data.draw(st.sampled_from([found for found in places(w) if found[0]]))
    choices = [pair for pair in differing(node) if type(pair[0]) is not type(node) or node is None]
    new, came = data.draw(st.sampled_from(choices))
    g = put(w, path, new)
    opt = fl.SGD()
    with pytest.raises((TypeError, ValueError)) as caught:
        opt.step(w, g)
    assert repr("/".join(map(str, path))) in str(caught.value)
    assert came in str(caught.value)
    assert opt.t == 0


@drawn(100)
@given(data=st.data(), w=trees)
def test_of_any_tree_with_a_key_left_out_or_added_the_message_names_it(data, w):
    holders = [(path, node) for path, node in places(w) if isinstance(node, dict)]
    if not holders:
        return
    path, node = data.draw(st.sampled_from(holders))
    key = data.draw(st.sampled_from([*node, "new", 7]))
    changed = {k: item for k, item in node.items() if k != key} if key in node else {**node, key: leaf()}
    with pytest.raises(ValueError, match="missing" if key in node else "unexpected") as caught:
        fl.SGD().step(w, put(w, path, changed))
    assert repr("/".join(map(str, (*path, key)))) in str(caught.value)


# ---- trees that a file cannot hold -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [("a", 0), np.int64(0), Key.a, 0.5, None, True, b"a"], ids=repr)
def test_a_key_that_a_file_cannot_hold_is_named_with_its_place_and_what_keys_may_be(key, path):
    opt = fl.Adam(0.1)
    for w, place in (({key: leaf()}, ""), ({"l": [{key: leaf()}]}, " at 'l/0'")):
        with pytest.raises(TypeError) as caught:
            opt.save(path, w)
        said = str(caught.value)
        assert f"the key {key!r}{place}, which is of {type(key).__name__}" in said
        assert "strings or integers as keys" in said
        assert not path.exists()
