"""Leaves as arrays: which kind each is, its dtype, its view in host memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import COMPLEX, STEPPED, SUPPORTED, kept
from fallline._arrays.libraries import LIBRARIES, library_of
from fallline._arrays.memory import empty
from fallline._arrays.namespaces import namespace
from fallline._arrays.trees import copy
from fallline._messages.remedies import instead, is_masked

__all__ = [
    "as_number", "cast", "detached", "dtype_name", "dtype_of", "filled_like", "form", "host", "in_memory", "is_complex",
    "is_foreign", "is_jax", "is_number", "is_tensor", "joined", "kind_of", "library", "like", "mark_changed", "model",
    "new_like", "non_finite", "number", "owned", "shared", "split", "view", "widened",
]  # fmt: skip


def kind_of(leaf: Any, what: str, dtypes: Sequence[str] = STEPPED, written: bool = True) -> str:
    """ "host" (an array in host memory that NumPy can share), "number" (a Python or NumPy scalar) or "foreign".

    Raises TypeError, naming `what` and what to pass instead, for anything that is no array of one of the `dtypes`, or
    cannot be `written` if it is to be.
    """
    own = library_of(leaf)
    kind, name = own.kind(leaf, what), own.dtype_name(leaf)
    if name not in dtypes:
        raise TypeError(f"{what} must be {SUPPORTED}. Got {name}{instead(leaf, what)}.")
    own.check(leaf, what, written)
    return kind


def library(leaf: Any) -> str:
    """The name of the library that a leaf's state is of: "jax"; "numpy" for a Python number too."""
    return library_of(leaf).name(leaf)


def form(leaf: Any) -> Any:
    """An object that a leaf shares with others of its class, shape and dtype alone, if it is one that can be read; None
    where its library has no such thing, so that it must be looked at."""
    return LIBRARIES[type(leaf)].form(leaf)


def dtype_name(leaf: Any) -> str:
    """The dtype's name without its library: "float32"."""
    return library_of(leaf).dtype_name(leaf)


def dtype_of(leaf: Any) -> np.dtype:
    """The dtype of a leaf of any kind, in native byte order."""
    return library_of(leaf).dtype(leaf)


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
    return leaf if type(leaf) is np.ndarray else library_of(leaf).view(leaf)


def shared(leaf: Any) -> Any:
    """A tensor (`is_tensor`) as the array that shares its memory, which must be possible; anything else as it is."""
    return LIBRARIES[type(leaf)].shared(leaf)


def in_memory(leaf: Any) -> np.ndarray | None:
    """A leaf of any kind as the array whose memory it shares, if there is one."""
    return LIBRARIES[type(leaf)].in_memory(leaf)


def host(leaf: Any) -> np.ndarray:
    """A leaf of any kind as a plain ndarray in host memory, of its own dtype; shares memory where it can."""
    return library_of(leaf).host(leaf)


def cast(leaf: Any, dtype: np.dtype) -> Any:
    """A leaf of any library in a dtype; a Python number as it is."""
    return LIBRARIES[type(leaf)].cast(leaf, dtype)


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
    return library_of(leaf).detached(leaf)


def owned(array: Any) -> Any:
    """A copy of an array of any library, in memory of its own: one that lies in a file is a plain one."""
    return np.array(array) if isinstance(array, np.memmap) else copy(array)


def new_like(leaf: Any, shape: tuple[int, ...], dtype: np.dtype, order: Sequence[int] | None = None) -> Any:
    """A new array of the leaf's kind: of its subclass of ndarray, a torch tensor, or plain; C-contiguous, but for a
    plain one that may have another order of its axes."""
    if order is not None and type(leaf) is np.ndarray:
        return empty(shape, dtype, order)
    return library_of(leaf).new_like(leaf, shape, dtype)


def model(leaf: Any) -> Any:
    """What to keep of a leaf for `new_like` and `as_number`: a number itself, of a tensor or a subclass of ndarray an
    empty one, and of others nothing: plain arrays need none, and the state of other libraries is theirs."""
    return library_of(leaf).model(leaf)


def mark_changed(leaves: Sequence[Any]) -> None:
    """Tell the libraries of leaves that these were written."""
    kinds = set(map(type, leaves))
    for kind in kinds:
        own = leaves if len(kinds) == 1 else [leaf for leaf in leaves if type(leaf) is kind]
        LIBRARIES[kind].mark_changed(own)


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf is a torch tensor or parameter, and of no other class of tensors."""
    return LIBRARIES[type(leaf)].is_plain_tensor


def is_jax(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX, and none that it traces."""
    return LIBRARIES[type(leaf)].is_jax


def is_number(leaf: Any) -> bool:
    """Whether a leaf is a Python or NumPy scalar, which cannot be written."""
    return LIBRARIES[type(leaf)].is_number


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
    return LIBRARIES[type(leaf)].is_foreign


def non_finite(array: Any) -> str:
    """How many entries of an array in host memory are not finite, in words; empty if none."""
    nan = infinite = 0
    for part in np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], buffersize=65536):
        nan += int(np.count_nonzero(np.isnan(part)))
        infinite += int(np.count_nonzero(np.isinf(part)))
    return " and ".join(f"{n:,} {word}" for n, word in ((nan, "NaN"), (infinite, "infinite")) if n)


def number(value: Any, demand: str) -> float:
    """`value` as a float if it is a real number or 0-d array of any library; else a TypeError with the `demand`."""
    if isinstance(value, float):
        return float(value)
    if getattr(value, "ndim", None) == 0 and not is_masked(value):
        value = value.item() if hasattr(value, "item") else host(value).item()
    if not isinstance(value, (int, float, np.floating)):
        shape = getattr(value, "shape", None)
        raise TypeError(f"{demand}. Got {type(value).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}.")
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return math.inf if value > 0 else -math.inf
