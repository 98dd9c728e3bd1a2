"""State dictionaries: the ways to copy a state, and what may be altered in one."""

from __future__ import annotations

import copy
import pickle

COPIES = {
    "state_dict": lambda opt, fresh: fresh.load_state_dict(opt.state_dict()) or fresh,
    "plain dicts": lambda opt, fresh: fresh.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict()))) or fresh,
    "deepcopy": lambda opt, fresh: copy.deepcopy(opt),
    "copy": lambda opt, fresh: copy.copy(opt),
    "pickle": lambda opt, fresh: pickle.loads(pickle.dumps(opt)),
}


def arrays_of(d):
    states = d["parts"].values() if "parts" in d else [d]
    return [array for state in states if state for slot in state["state"].values() for array in slot.values()]


def without(d, key):
    return {k: v for k, v in d.items() if k != key}


def with_leaf(d, path, **changed):
    return {**d, "leaves": {**d["leaves"], path: {**d["leaves"][path], **changed}}}


def with_array(d, array, slot="m", path="a"):
    return {**d, "state": {**d["state"], slot: {**d["state"][slot], path: array}}}
