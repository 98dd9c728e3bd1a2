"""What is no checkpoint, or was altered: refused whatever it holds, and nothing has changed."""

from __future__ import annotations

import copy
import functools
import json
import operator
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from fallline._state.file import read as read_file
from fallline._state.file import write as write_file
from fuzz_checkpoints import digest_of
from needed import need
from places import DATA
from support import halving, signed_average_1


@functools.cache
def a_small_checkpoint():
    """The bytes of a file with parameters."""
    opt, w = fl.Momentum(0.25), {"a": np.array([1.0, 2.0]), "b": 3.0}
    w = opt.step(w, {"a": np.array([0.5, -0.5]), "b": 1.0})
    with tempfile.TemporaryDirectory() as folder:
        opt.save(Path(folder) / "small", w)
        return (Path(folder) / "small").read_bytes()


def assert_refused(path, content, message=None):
    """Neither way of loading takes the file, and an optimizer is left as it was."""
    path.write_bytes(content)
    with pytest.raises(fl.CheckpointError, match=message) as caught:
        fl.load(path)
    opt = fl.Momentum(0.125)
    with pytest.raises(fl.CheckpointError):
        opt.load(path)
    assert (opt.t, dict(opt.state), opt.lr) == (0, {}, 0.125)
    return str(caught.value)


def test_every_truncation_is_refused(path):
    content = a_small_checkpoint()
    path.write_bytes(content)
    for length in range(len(content), -1, -1):
        os.truncate(path, length)
        if length < len(content):
            with pytest.raises(fl.CheckpointError, match=r"no checkpoint, or a truncated one|altered or cut short"):
                fl.load(path)
        else:
            assert fl.load(path)[0].t == 1
    assert_refused(path, content + b"\0", "altered or cut short")


def test_every_flipped_bit_is_refused(path):
    content = bytearray(a_small_checkpoint())
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        for place in range(len(content)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([content[place] ^ 1 << bit]), place)
                with pytest.raises(fl.CheckpointError):
                    read_file(path)
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert fl.load(path)[0].t == 1


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length : -32]


def rebuilt(header, data):
    """A file with this header and data, and a digest that fits."""
    text = json.dumps(header, separators=(",", ":")).encode()
    body = len(text).to_bytes(8, "little") + text + data
    return body + digest_of(body)


def with_info(change):
    header, data = header_of(a_small_checkpoint())
    info = json.loads(header["__metadata__"]["info"])
    change(info)
    header["__metadata__"]["info"] = json.dumps(info)
    return rebuilt(header, data)


def with_header(change):
    header, data = header_of(a_small_checkpoint())
    change(header)
    return rebuilt(header, data)


def entries(header):
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


SENSELESS = {
    "a hole": lambda h: [e.update(data_offsets=[n + 8 for n in e["data_offsets"]]) for e in entries(h).values()],
    "an overlap": lambda h: h["params/a"].update(data_offsets=h["state/velocity/a"]["data_offsets"]),
    "a shape too large": lambda h: h["params/a"].update(shape=[3]),
    "a huge shape": lambda h: h["params/a"].update(shape=[2**40, 2**40]),
    "an empty huge shape": lambda h: h["params/a"].update(shape=[0, 10**30]),
    "a negative shape": lambda h: h["params/a"].update(shape=[-1, -2]),
    "a shape of truth": lambda h: h["params/a"].update(shape=[True, 2]),
    "too many dimensions": lambda h: h["params/a"].update(shape=[1] * 99 + [2]),
    "places as text": lambda h: h["params/a"].update(data_offsets="ab"),
    "huge places": lambda h: h["params/a"].update(data_offsets=[10**30, 10**30 + 16]),
    "an unknown dtype": lambda h: h["params/a"].update(dtype="F8_E4M3"),
    "another dtype": lambda h: h["state/velocity/a"].update(dtype="I64"),
    "no dtype": lambda h: h["params/a"].pop("dtype"),
    "no entry": lambda h: h.update({"params/a": None}),
    "a missing array": lambda h: h.update({"params/c": h.pop("params/a")}),
    "a superfluous array": lambda h: h.update({"other": {**h["params/a"], "shape": [0], "data_offsets": [0, 0]}}),
    "no digest": lambda h: h.update({"extra/digest": h.pop("digest")}),
    "pairs that are none": lambda h: h["__metadata__"].update(complex='{"params/a": "complex128", "params/b": "?"}'),
    "no info": lambda h: h["__metadata__"].pop("info"),
    "info of another kind": lambda h: h["__metadata__"].update(info="[]"),
    "info that is no JSON": lambda h: h["__metadata__"].update(info="{"),
    "info too deep": lambda h: h["__metadata__"].update(info="[" * 100_000),
    "a number too long": lambda h: h["__metadata__"].update(info="9" * 10_000),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_a_header_that_makes_no_sense_is_refused_though_the_digest_fits(case, path):
    assert_refused(path, with_header(SENSELESS[case]))


WRONG_INFO = {
    "t": ({"t": -1}, "t of the state must be"),
    "counts": ({"skipped": "1"}, "skipped of the state must be"),
    "format": ({"format": 999}, "format 999"),
    "rules": ({"rules": {"adam": "built in"}}, None),
    "a setting": ({"hyper": {"momentum.lr": -1.0, "momentum.momentum": 0.9}}, "lr of Momentum must be ≥ 0"),
    "settings": ({"hyper": {}}, "lacks momentum.lr"),
    "leaves": ({"leaves": {"a": {}}}, None),
    "slots": ({"slots": ["m"]}, None),
    "a superfluous key": ({"more": 1}, None),
}
WRONG_BUILT = {
    "a rule that is none": ({"links": [["__name__", ""]]}, "needs the rule '__name__'"),
    "a name that is none": ({"links": [[None, ""]]}, "names of its rules are no text"),
    "a title that is none": ({"links": [["momentum", None]]}, "names of its rules are no text"),
    "no rule": ({"links": []}, None),
    "another class": ({"class": "Adam"}, "needs the class Adam"),
    "no class": ({"class": None}, "needs the class None"),
    "an unknown option": ({"options": {"shell": 1}}, "shell"),
    "a folder of another machine": ({"options": {"state_dir": "/"}}, "unknown options: state_dir"),
    "an option out of range": ({"options": {"engine": "fast"}}, "engine of Momentum must be one of"),
}


@pytest.mark.parametrize("case", WRONG_INFO)
def test_content_that_makes_no_sense_is_refused_though_the_digest_fits(case, path):
    change, message = WRONG_INFO[case]
    assert_refused(path, with_info(lambda info: info.update(change)), message)


@pytest.mark.slow
@pytest.mark.parametrize("junk", [None, 7, "x", [], {}, {"a": 1}, "left out"], ids=repr)
def test_junk_at_any_place_of_a_partitions_file_leads_to_no_other_error(junk, path):
    info, arrays = read_file(DATA / "partition-1.safetensors")
    refused = 0
    for place in places_in(info):
        bad = copy.deepcopy(info)
        inner = functools.reduce(operator.getitem, place[:-1], bad)
        if junk == "left out":
            del inner[place[-1]]
        else:
            inner[place[-1]] = junk
        write_file(path, bad, dict(arrays))
        try:
            fl.load(path, rules=[signed_average_1], **{"x.lr": halving})
        except fl.CheckpointError:
            refused += 1
    assert refused > 50


def places_in(node, path=()):
    """The paths of all that is in a tree of JSON, but for itself."""
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places_in(inner, (*path, key))


@pytest.mark.parametrize("case", WRONG_BUILT)
def test_an_optimizer_that_cannot_be_made_is_refused_though_the_digest_fits(case, path):
    change, message = WRONG_BUILT[case]
    path.write_bytes(with_info(lambda info: info["built"].update(change)))
    with pytest.raises(fl.CheckpointError, match=message):
        fl.load(path)
    assert fl.Momentum().load(path)["b"] == 2.75  # by an optimizer that is there


def test_swapped_arrays_are_refused(path):
    header, data = header_of(a_small_checkpoint())
    a, b = (slice(*header[name]["data_offsets"]) for name in ("params/a", "state/velocity/a"))
    swapped = bytearray(data)
    swapped[a], swapped[b] = data[b], data[a]
    content = a_small_checkpoint()
    assert_refused(path, content[: -32 - len(data)] + bytes(swapped) + content[-32:], "altered")


def test_foreign_files_are_refused_by_what_they_are(path):
    library = need("safetensors.numpy")
    cases = {
        "another program": library.save({"w": np.ones(3), "x": np.zeros(20)}),
        "another program's": library.save({"w": np.ones(9)}, {"format": "pt"}),
        "no checkpoint, or a truncated one": b"",
        "no checkpoint": b"Dear reader, " * 100,
        "no checkpoint:": bytes(200),
        "format 99; this version of fallline reads 1 and 2": with_header(
            lambda h: h["__metadata__"].update(fallline="99")),
        "format 123456": with_header(lambda h: h["__metadata__"].update(fallline="123456")),
    }
    for message, content in cases.items():
        assert_refused(path, content, message.split("'")[0])
    np.savez(path.parent / "file.npz", w=np.ones(9))
    assert_refused(path, (path.parent / "file.npz").read_bytes(), "no checkpoint")
    with pytest.raises(fl.CheckpointError, match="is a folder"):
        fl.load(path.parent)
    with pytest.raises(fl.CheckpointError, match="is a folder"):
        fl.SGD().save(path.parent)
    with pytest.raises(fl.CheckpointError, match="no regular file"):
        fl.load("/dev/zero")
    with pytest.raises(FileNotFoundError):
        fl.load(path.parent / "none")


def test_a_huge_header_costs_no_memory(path):
    with open(path, "wb") as file:
        file.write((2**62).to_bytes(8, "little"))
        file.truncate(10**6)
    assert_refused_as_it_lies(path, "no room for its header")
    with open(path, "wb") as file:  # a file with a hole: it takes no room
        file.write((2**33).to_bytes(8, "little"))
        file.truncate(2**34)
    assert_refused_as_it_lies(path, "no room for its header")
    path.unlink()


def assert_refused_as_it_lies(path, message):
    with pytest.raises(fl.CheckpointError, match=message):
        fl.load(path)


ATOMS = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False) | st.sampled_from(
    ["", "a", "momentum", "built in", "float64", "F64", "state/velocity/a"]) | st.lists(st.integers(-1, 3), max_size=3)


def nodes_of(tree, at=()):
    """The places in nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from nodes_of(value, (*at, key))


def changed(tree, place, value):
    for key in place[:-1]:
        tree = tree[key]
    if value is ...:
        del tree[place[-1]]
    else:
        tree[place[-1]] = value


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_the_content_is_refused_or_gives_an_optimizer_that_works(data):
    """Mutated headers and info whose digest was made to fit: a CheckpointError, or a proper optimizer."""
    header, body = header_of(a_small_checkpoint())
    header["__metadata__"]["info"] = json.loads(header["__metadata__"]["info"])
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(nodes_of(header))))
        changed(header, place, data.draw(ATOMS | st.just(...)))
    if isinstance(header.get("__metadata__"), dict) and "info" in header["__metadata__"]:
        header["__metadata__"]["info"] = json.dumps(header["__metadata__"]["info"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant"
        path.write_bytes(rebuilt(header, body))
        try:
            loaded = fl.load(path)
        except fl.CheckpointError:
            return
    opt = loaded[0] if isinstance(loaded, tuple) else loaded
    opt.state_dict()
    repr(opt)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bytes_written_over_cut_out_or_put_in_are_refused(data):
    content = a_small_checkpoint()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 40)))
    mutant = content[:start] + data.draw(st.binary(max_size=40)) + content[stop:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant"
        path.write_bytes(mutant)
        if mutant == content:
            assert fl.load(path)[0].t == 1
        else:
            with pytest.raises(fl.CheckpointError):
                fl.load(path)
