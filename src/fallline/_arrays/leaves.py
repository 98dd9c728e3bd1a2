"""Leaves as arrays: which kind each is, its dtype, its view in host memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fallline._arrays.dtypes import CASTABLE, COMPLEX, LACKED, STEPPED, SUPPORTED, dtype_named, kept
from fallline._arrays.namespaces import namespace
from fallline._arrays.trees import copy, is_container
from fallline._messages.remedies import instead, is_converted, is_tracer
from fallline._messages.values import brief
from fallline.errors import FalllineError

__all__ = [
    "as_number", "cast", "detached", "dtype_name", "dtype_of", "filled_like", "host", "is_complex",
    "is_foreign", "is_number", "is_tensor", "joined", "kind_of", "library", "like", "mark_changed", "model", "new_like",
    "non_finite", "owned", "reading", "split", "view", "widened",
]  # fmt: skip


def kind_of(leaf: Any, what: str, dtypes: Sequence[str] = STEPPED, written: bool = True) -> str:
    """ "numpy", "torch" (in host memory), "number" (a Python or NumPy scalar) or "foreign" (any other library).

    Raises TypeError, naming `what` and what to pass instead, for anything that is no array of one of the `dtypes`, or
    cannot be `written` if it is to be.
    """
    kind = _kind(leaf, what)
    name = dtype_name(leaf)
    if name not in dtypes:
        raise TypeError(f"{what} must be {SUPPORTED}. Got {name}{instead(leaf, what)}.")
    if kind == "torch" or (kind == "foreign" and getattr(leaf, "is_meta", False)):
        with reading(leaf, what):
            host(leaf)
    if kind == "torch" and written:  # its negation would be lost
        for is_lazy, word, remedy in ((leaf.is_neg(), "negated", "neg"), (leaf.is_conj(), "conjugated", "conj")):
            if is_lazy:
                raise TypeError(f"{what} is a lazily {word} view: call .resolve_{remedy}() on it first.")
    return kind


def _kind(leaf: Any, what: str) -> str:
    torch, masked = sys.modules.get("torch"), sys.modules.get("numpy.ma")  # which is imported late
    if masked is not None and isinstance(leaf, masked.MaskedArray):
        raise TypeError(f"{what} is a masked array; a step would ignore the mask{instead(leaf)}.")
    if isinstance(leaf, np.ndarray):
        return "numpy"
    if is_number(leaf):
        return "number"
    if torch is not None and isinstance(leaf, torch.Tensor):
        if leaf.layout is not torch.strided or leaf.is_nested:
            raise TypeError(f"{what} is a {'nested' if leaf.is_nested else leaf.layout} tensor{instead(leaf)}.")
        return "torch" if leaf.device.type == "cpu" else "foreign"
    if is_tracer(leaf):
        raise TypeError(f"{what} is a JAX tracer: an optimizer keeps state and cannot run inside jit, grad or vmap. "
                        "Call step outside, on the gradients that a jitted function returns.")
    if isinstance(leaf, (int, np.generic)):
        raise TypeError(f"{what} must be {SUPPORTED}. Got {brief(leaf)} ({type(leaf).__name__}){instead(leaf)}.")
    if is_container(leaf):
        raise TypeError(f"{what} must be one array, as the parameters have it. Got a {type(leaf).__name__}.")
    is_array = hasattr(leaf, "__array_namespace__") or type(leaf).__module__.split(".")[0] == "cupy"
    if not is_array or is_converted(leaf) or isinstance(leaf, type):
        got = brief(leaf) if isinstance(leaf, type) else type(leaf).__name__
        raise TypeError(f"{what} must be an array of {SUPPORTED}. Got {got}{instead(leaf, what)}.")
    if getattr(leaf, "is_deleted", bool)():
        raise TypeError(f"{what} is a JAX array that was deleted, as those are that were donated to a jitted function: "
                        "pass what that returned.")
    return "foreign"


@contextmanager
def reading(leaf: Any, what: str) -> Iterator[None]:
    """Have what another library raises, as it is asked for the numbers of a leaf, be a TypeError that names that."""
    try:
        yield
    except (FalllineError, MemoryError):
        raise
    except Exception as error:
        root = type(leaf).__module__.split(".")[0]
        raise TypeError(f"{what} is a {type(leaf).__name__} of {root} whose numbers cannot be read"
                        f"{instead(leaf)}.") from error


def library(leaf: Any) -> str:
    """The name of the library that a leaf's state is of: "jax"; "numpy" for a Python number too."""
    xp = namespace(leaf) or np
    return xp.__name__.removeprefix("array_api_compat.").split(".")[0]


def dtype_name(leaf: Any) -> str:
    """The dtype's name without its library: "float32"."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.name if leaf.dtype.names is None else str(leaf.dtype)
    if isinstance(leaf, (float, complex)):
        return "float64" if isinstance(leaf, float) else "complex128"
    return str(leaf.dtype).split(".")[-1]


def dtype_of(leaf: Any) -> np.dtype:
    """The dtype of a leaf of any kind, in native byte order."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return np.dtype(leaf.dtype.type)
    return dtype_named(dtype_name(leaf))


def filled_like(leaf: Any, value: Any) -> Any:
    """A new array of the leaf's library, shape and dtype, holding a number or the values of an ndarray; if it is
    complex, in both parts."""
    xp = namespace(leaf) or np
    if isinstance(value, np.ndarray):
        return xp.zeros_like(leaf) + like(leaf, value + 1j * value if is_complex(leaf) else value)
    return xp.full_like(leaf, complex(value, value) if is_complex(leaf) else value)


def like(leaf: Any, value: Any) -> Any:
    """`value` as an array of the leaf's library, dtype and device; a float stays one, as it leaves dtypes alone."""
    if isinstance(value, float):
        return value
    from array_api_compat import device

    xp = namespace(leaf) or np
    where = {} if xp is np else {"device": device(leaf)}
    return xp.asarray(value, dtype=leaf.dtype if hasattr(leaf, "dtype") else float, **where)


def view(leaf: Any) -> np.ndarray:
    """A leaf in host memory as a plain ndarray that shares its memory (a number: a copy)."""
    if type(leaf) is np.ndarray:
        return leaf
    if isinstance(leaf, np.ndarray):
        return leaf.view(np.ndarray)
    if is_number(leaf):
        return np.array(leaf)
    return _as_array(leaf.detach().resolve_conj().resolve_neg())


def _as_array(tensor: Any) -> np.ndarray:
    """A torch tensor as the array that shares its memory."""
    name = dtype_name(tensor)
    if name not in LACKED:
        return tensor.numpy()
    bits = getattr(sys.modules["torch"], f"int{8 * tensor.itemsize}")
    return tensor.view(bits).numpy().view(dtype_named(name))  # NumPy knows torch's integers only


def host(leaf: Any) -> np.ndarray:
    """A leaf of any kind as a plain ndarray in host memory, of its own dtype; shares memory where it can."""
    if isinstance(leaf, (np.ndarray, float, np.generic)):
        return np.asarray(leaf)
    if hasattr(leaf, "detach"):  # torch
        return _as_array(leaf.detach().cpu().resolve_conj().resolve_neg())
    return np.asarray(leaf.get() if type(leaf).__module__.split(".")[0] == "cupy" else leaf)


def cast(leaf: Any, dtype: np.dtype) -> Any:
    """A leaf of any library in a dtype; a Python number as it is."""
    xp = namespace(leaf)
    if xp is np:
        return leaf.astype(dtype, copy=False)  # which notices another byte order, too
    return leaf if xp is None or dtype_of(leaf) == dtype else xp.astype(leaf, getattr(xp, dtype.name))


def widened(leaf: Any) -> Any:
    """A leaf of any library in the dtype that its state has."""
    return cast(leaf, kept(dtype_of(leaf)))


def split(leaf: Any) -> Any:
    """A leaf of any library as reals: if it is complex, a new array of its two parts, along one more axis."""
    if not is_complex(leaf):
        return leaf
    xp = namespace(leaf) or np
    return xp.stack((xp.real(leaf), xp.imag(leaf)), axis=-1)


def joined(array: Any, dtype: np.dtype) -> Any:
    """Reals of any library as numbers of a dtype, which undoes `split`."""
    if dtype.kind != "c":
        return cast(array, dtype)
    return cast(array[..., 0], dtype) + 1j * cast(array[..., 1], dtype)


def is_complex(leaf: Any) -> bool:
    """Whether a leaf of any kind is complex."""
    return dtype_name(leaf) in COMPLEX


def detached(leaf: Any) -> Any:
    """A leaf outside any autograd graph."""
    return leaf.detach() if hasattr(leaf, "detach") else leaf


def owned(array: Any) -> Any:
    """A copy of an array of any library, in memory of its own: one that lies in a file is a plain one."""
    return np.array(array) if isinstance(array, np.memmap) else copy(array)


def new_like(leaf: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A new C-contiguous array of the leaf's kind: of its subclass of ndarray, a torch tensor, or plain."""
    if isinstance(leaf, np.ndarray) and type(leaf) is not np.ndarray:  # a subclass keeps what it carries
        new = np.empty_like(leaf, dtype, "C", shape=shape)
    else:
        new = np.empty(shape, dtype)
    if type(leaf).__module__.split(".")[0] == "torch":
        torch = sys.modules["torch"]
        if dtype.name in LACKED:
            return torch.from_numpy(new.view(f"i{dtype.itemsize}")).view(getattr(torch, dtype.name))
        return torch.from_numpy(new)
    return new


def model(leaf: Any, kind: str) -> Any:
    """What to keep of a leaf of a kind (`kind_of`) for `new_like` and `as_number`: a number itself, of a tensor or of a
    subclass of ndarray an empty one, and of others nothing: plain arrays need none, and the state of other libraries
    is theirs."""
    if kind == "numpy":
        return None if type(leaf) is np.ndarray else np.empty_like(leaf, shape=(0,) * leaf.ndim)
    return leaf if kind == "number" else leaf.new_empty(0) if kind == "torch" else None


def mark_changed(leaves: Sequence[Any]) -> None:
    """Tell torch which tensors were written, so that autograd notices a stale saved value."""
    torch = sys.modules.get("torch")
    if torch is not None:
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if tensors:
            torch.autograd.graph.increment_version(tensors)


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf is a torch tensor or parameter, and of no other class of tensors."""
    torch = sys.modules.get("torch")
    return torch is not None and type(leaf) in (torch.Tensor, torch.nn.Parameter)


def is_number(leaf: Any) -> bool:
    """Whether a leaf is a Python or NumPy scalar, which cannot be written."""
    return isinstance(leaf, (float, complex)) or (isinstance(leaf, np.generic) and leaf.dtype.name in CASTABLE)


def as_number(leaf: Any, value: Any) -> Any:
    """A value as the kind of number that a leaf is: a NumPy scalar of its dtype, or a Python number. It is complex if
    the value is."""
    if np.iscomplexobj(value) and not is_complex(leaf):
        return complex(value)
    if isinstance(leaf, np.generic):
        return type(leaf)(value)
    return complex(value) if isinstance(leaf, complex) else float(value)


def is_foreign(leaf: Any) -> bool:
    """Whether a leaf is an array of a library that does not share its memory with NumPy."""
    known = isinstance(leaf, (np.ndarray, float, complex, np.generic))
    return not known and type(leaf).__module__.split(".")[0] != "torch"


def non_finite(array: Any) -> str:
    """How many entries of an array in host memory are not finite, in words; empty if none."""
    nan = infinite = 0
    for part in np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], buffersize=65536):
        nan += int(np.count_nonzero(np.isnan(part)))
        infinite += int(np.count_nonzero(np.isinf(part)))
    return " and ".join(f"{n:,} {word}" for n, word in ((nan, "NaN"), (infinite, "infinite")) if n)
