"""Containers and arrays that cannot be stepped: refused by name, before anything changes, with a line that helps.

A row of the table is what makes one, and what stands in it: a new container joins by its row.
"""

from __future__ import annotations

import array
import re
import types
import warnings
from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import frozen

pytestmark = pytest.mark.slow


@dataclass
class Record:
    w: object


@dataclass(slots=True)
class Slotted:
    w: object


class Plain:
    def __init__(self, w):
        self.w = w


class Pairs(UserDict):
    def __init__(self, pairs):
        super().__init__()
        for key, value in pairs:
            self[key] = value


class Converting(dict):
    def __init__(self, items):
        super().__init__({key: np.asarray(value) for key, value in items.items()})


class Growing(dict):
    def __init__(self, items):
        super().__init__({**items, f"{len(items)}": np.ones(2)})


def fake():
    need("torch")
    return need("torch._subclasses").FakeTensorMode().from_tensor(need("torch").ones(2))


def masked_tensor():
    torch = need("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return need("torch.masked").masked_tensor(torch.ones(2), torch.tensor([True, False]))


def nested(**layout):
    torch = need("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], **layout)


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return need("torch").quantize_per_tensor(need("torch").ones(2), 0.1, 0, need("torch").quint8)


def in_mlx():
    """What stands for an array of MLX, which is not made for all machines."""
    return type("array", (), {"__module__": "mlx.core", "dtype": "mlx.core.float32", "shape": (2,), "ndim": 1,
                              "__array__": lambda self, *_, **__: np.ones(2, np.float32)})()


def key_array():
    return need("jax").random.key(0)


# What is refused everywhere, and whether the message has a line that makes something of it that can be stepped.
REFUSED = {
    "a mapping that is made of pairs": (lambda: Pairs([("a", np.ones(2))]), True),
    "a mapping that turns its values into others": (lambda: Converting({"a": np.ones(2)}), True),
    "a mapping that adds to its items": (lambda: Growing({"a": np.ones(2)}), True),
    "a defaultdict of one's own": (lambda: type("Own", (defaultdict,), {})(list, a=np.ones(2)), True),
    "dict_items": (lambda: {"a": np.ones(2)}.items(), True),
    "dict_values": (lambda: {"a": np.ones(2)}.values(), True),
    "dict_keys": (lambda: {"a": np.ones(2)}.keys(), False),
    "generator": (lambda: (w for w in [np.ones(2)]), True),
    "list_iterator": (lambda: iter([np.ones(2)]), True),
    "map": (lambda: map(np.ones, [2]), True),
    "UserList": (lambda: UserList([np.ones(2)]), True),
    "a list of one's own": (lambda: type("Row", (list,), {})([np.ones(2)]), True),
    "set": (lambda: {1.0}, True),
    "frozenset": (lambda: frozenset({1.0}), True),
    "str": (lambda: "weights", False),
    "a str of a number": (lambda: "1.5", True),
    "bytes": (lambda: b"weights", False),
    "Record": (lambda: Record(np.ones(2)), True),
    "Slotted": (lambda: Slotted(np.ones(2)), False),
    "Plain": (lambda: Plain(np.ones(2)), True),
    "SimpleNamespace": (lambda: types.SimpleNamespace(w=np.ones(2)), True),
    "object": (object, False),
    "the class float32": (lambda: np.float32, False),
    "a class": (lambda: Plain, False),
    "text": (lambda: np.array(["1.5"]), True),
    "int": (lambda: 3, True),
    "Decimal": (lambda: Decimal("0.5"), True),
    "Fraction": (lambda: Fraction(1, 2), True),
    "int64": (lambda: np.ones(2, np.int64), True),
    "bool": (lambda: np.ones(2, bool), True),
    "object array": (lambda: np.array([1.0, 2.0], object), True),
    "float64)": (lambda: np.ones(2, [("a", "f8"), ("b", "f8")]), True),
    "datetime64": (lambda: np.array(["2020-01-01"], "datetime64[s]"), True),
    "StringDType": (lambda: np.array(["1.5"], np.dtypes.StringDType()), True),
    "masked array": (lambda: np.ma.masked_array(np.ones(2), [True, False]), True),
    "memoryview": (lambda: memoryview(np.ones(2)), True),
    "array": (lambda: array.array("d", [1.0, 2.0]), True),
    "array of mlx": (in_mlx, True),
    "Series": (lambda: need("pandas").Series([1.0, 2.0]), True),
    "DataFrame": (lambda: need("pandas").DataFrame({"a": [1.0, 2.0]}), True),
    "a Series of one's own": (lambda: type("Own", (need("pandas").Series,), {})([1.0, 2.0]), True),
    "DataArray": (lambda: need("xarray").DataArray(np.ones(2)), True),
    "Dataset": (lambda: need("xarray").Dataset({"a": ("x", np.ones(2))}), True),
    "Array of dask": (lambda: need("dask.array").from_array(np.ones(2)), True),
    "COO": (lambda: need("sparse").COO.from_numpy(np.ones(2)), True),
    "csr_array": (lambda: need("scipy.sparse").csr_array(np.eye(2)), True),
    "csr_matrix": (lambda: need("scipy.sparse").csr_matrix(np.eye(2)), True),
    "Linear": (lambda: need("torch").nn.Linear(2, 1), True),
    "generator of a module": (lambda: need("torch").nn.Linear(2, 1).parameters(), True),
    "torch.sparse_coo": (lambda: need("torch").ones(2).to_sparse(), True),
    "torch.sparse_csr": (lambda: need("torch").eye(2).to_sparse_csr(), True),
    "nested": (nested, True),
    "nested, jagged": (lambda: nested(layout=need("torch").jagged), True),
    "quint8": (quantized, True),
    "float8_e5m2": (lambda: need("torch").ones(2).to(need("torch").float8_e5m2), True),
    "torch int64": (lambda: need("torch").ones(2, dtype=need("torch").int64), True),
    "FakeTensor": (fake, True),
    "MaskedTensor": (masked_tensor, True),
    "key<": (key_array, False),
    "BCOO": (lambda: need("jax.experimental.sparse").BCOO.fromdense(need("jax.numpy").ones(2)), True),
    "ShapeDtypeStruct": (lambda: need("jax").ShapeDtypeStruct((2,), "float32"), False),
    "int32": (lambda: need("jax.numpy").ones(2, "int32"), True),
    "names and parameters of a module": (lambda: need("torch").nn.Linear(2, 1).named_parameters(), True),
}  # fmt: skip
NUMBERS = ("int", "Fraction", "int64", "torch int64", "int32")  # that settings may be made of


def read(said, value):
    """What the line that a message ends in makes of a value."""
    line = re.search(r"pass (?:a list, )?(.*?)(?: or .data)?( of it)?\.( It stands at 'a'\.)?$", said)
    assert line, said
    code = f"x{line[1]}" if line[2] else line[1].replace("...", "x")
    names = {"x": value, "model": value, "numpy": np, **{name: need(name) for name in ("torch", "jax") if name in code}}
    return eval(code, names)


def refusals(make):
    """Each way in which a value may come, with the call that brings it, an optimizer and the parameters."""
    for steps in (0, 1):
        opt, w = fl.Momentum(0.5), {"a": np.ones(2), "b": np.ones(1)}
        for _ in range(steps):
            opt.step(w, {"a": np.ones(2), "b": np.ones(1)})
        yield "gradient", lambda opt=opt, w=w: opt.step(w, {"a": make(), "b": np.ones(1)}), opt, w
        yield "grads", lambda opt=opt, w=w: opt.step(w, make()), opt, w
        yield "out", lambda opt=opt, w=w: opt.update(w, out={"a": make(), "b": np.ones(1)}), opt, w
        yield "parameter", lambda opt=opt, w=w: opt.step({**w, "a": make()}, w), opt, w
    yield "gradient", lambda: fl.SGD().update(make()), opt, w
    yield "parameter", lambda: fl.SGD().step(make(), make()), opt, w
    yield "parameter", lambda: fl.Adam().save("never.safetensors", {"a": [make()]}), opt, w
    yield "lr", lambda opt=opt, w=w: setattr(opt, "lr", make()), opt, w
    yield "lr", lambda opt=opt, w=w: setattr(opt, "lr", {"a": make(), "b": 0.1}), opt, w
    yield "lr", lambda: fl.chain(fl.clip_value(1.0), fl.SGD(make())), opt, w


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stepped_is_refused_by_name_with_a_line_that_helps(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, helps = REFUSED[name]
    make()  # or a skip
    for what, call, opt, w in refusals(make):
        if what == "lr" and name in NUMBERS:
            continue
        before = frozen(w), frozen(dict(opt.state)), opt.t, opt.lr
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        said = str(caught.value)
        assert type(caught.value) in (TypeError, ValueError), said
        assert what in said
        assert "\n" not in said
        assert not list(tmp_path.iterdir())
        assert (frozen(w), frozen(dict(opt.state)), opt.t, opt.lr) == before
        if helps and what == "parameter":
            tree = read(said, make())
            increments = fl.SGD().update(tree)
            assert fl.SGD().step(tree, increments) is not None
            fl.Adam().save("it.safetensors", tree)
            (tmp_path / "it.safetensors").unlink()
        elif helps and what == "lr" and "opt.step" not in said:
            assert fl.SGD(read(said, make())).lr is not None


TAKEN = {
    "OrderedDict": lambda: OrderedDict(b=np.ones(2), a=np.zeros(1)),
    "defaultdict": lambda: defaultdict(list, b=np.ones(2), a=np.zeros(1)),
    "deque": lambda: deque([np.ones(2), np.zeros(1)]),
    "None among leaves": lambda: {"a": np.ones(2), "b": None},
    "empty containers": lambda: {"a": np.ones(2), "b": [], "c": {}},
    "a matrix": lambda: np.asmatrix(np.ones((2, 2))),
    "a scalar of NumPy": lambda: np.float32(1.0),
    "a 0-d array": lambda: np.array(1.0),
    "nothing": dict,
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", TAKEN)
def test_other_containers_are_trees_and_keep_their_kind(name):
    opt, w = fl.Momentum(0.5), TAKEN[name]()
    for _ in range(3):
        increment = opt.update(TAKEN[name](), params=w)
        stepped = opt.step(w, TAKEN[name]())
        assert type(stepped) is type(w) is type(increment)


def test_settings_of_a_matrix_or_with_a_mask_are_taken_as_numbers_or_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lr = np.asmatrix([[0.5, 1.0], [0.25, 2.0]])
    assert fl.SGD(lr).step(np.zeros((2, 2)), np.ones((2, 2))).tolist() == [[-0.5, -1.0], [-0.25, -2.0]]
    masked = np.ma.masked_array([0.1, 0.2], [True, False])
    with pytest.raises(TypeError, match=r"lr of SGD, one per coordinate, .*Got MaskedArray: pass .filled\(0\) or"):
        fl.SGD(masked)


def test_a_tracer_as_a_setting_is_refused_by_name():
    jax = need("jax")
    for name, make in (("lr", lambda lr: fl.Adam(lr=lr)), ("rate", lambda lr: fl.weight_decay({"a": lr})),
                       ("lr", lambda lr: setattr(fl.Adam(), "lr", lr))):  # fmt: skip
        with pytest.raises(TypeError, match="a JAX tracer, whose number is not known inside jit, grad or vmap: set it "
                                            rf"outside, or write fallline\.optax\.transform\(opt, {name}=\.\.\.\)\."):
            jax.jit(lambda lr, make=make: (make(lr), lr)[1])(0.1)
