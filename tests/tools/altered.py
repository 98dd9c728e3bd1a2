"""State dictionaries with something altered."""

from __future__ import annotations


def without(d, key):
    return {k: v for k, v in d.items() if k != key}


def with_leaf(d, path, **changed):
    return {**d, "leaves": {**d["leaves"], path: {**d["leaves"][path], **changed}}}


def with_array(d, array, slot="m", path="a"):
    return {**d, "state": {**d["state"], slot: {**d["state"][slot], path: array}}}
