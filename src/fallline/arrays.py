"""Leaves as arrays: which kind each is, its view in host memory, and whether memory overlaps."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

__all__ = [
    "address", "byte_range", "check_disjoint", "detached", "dtype_name", "dtype_of", "filled_like",
    "is_direct", "is_foreign", "is_number", "kind_of", "like", "mark_changed", "non_finite", "overlapping",
    "self_overlapping", "shaped_like", "view",
]  # fmt: skip

SUPPORTED = "float32 or float64"


def kind_of(leaf: Any, what: str) -> str:
    """ "numpy", "torch" (in host memory), "number" (a Python float or NumPy scalar) or "foreign" (any other library).

    Raises TypeError, naming `what`, for anything that is no array of real floating-point numbers.
    """
    if isinstance(leaf, np.ndarray):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(f"{what} is a masked array; a step would ignore the mask: pass .filled(0) or .data of it.")
        _check_dtype(leaf.dtype, what)
        return "numpy"
    if isinstance(leaf, (float, np.floating)):
        _check_dtype(np.dtype(type(leaf)), what)
        return "number"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(leaf, torch.Tensor):
        return _torch_kind(torch, leaf, what)
    if isinstance(leaf, (int, complex, np.generic)):
        raise TypeError(f"{what} must be {SUPPORTED}. Got {leaf!r} ({type(leaf).__name__}).")
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"{what} is a JAX tracer: an optimizer keeps state and cannot run inside jit, grad or vmap. "
                        "Call step outside, on the gradients that a jitted function returns.")
    if hasattr(leaf, "__array_namespace__") or type(leaf).__module__.split(".")[0] == "cupy":
        _check_name(dtype_name(leaf), what)
        return "foreign"
    raise TypeError(f"{what} must be an array of {SUPPORTED}. Got {type(leaf).__name__}."
                    f"{' Pass parameters to step: opt.step(params, grads).' if hasattr(leaf, 'parameters') else ''}")


def _torch_kind(torch: Any, leaf: Any, what: str) -> str:
    if leaf.layout is not torch.strided:
        raise TypeError(f"{what} is a {leaf.layout} tensor: convert it, {what}.to_dense().")
    _check_name(dtype_name(leaf), what)
    return "torch" if leaf.device.type == "cpu" else "foreign"


def dtype_of(leaf: Any) -> np.dtype:
    """The dtype of a leaf of any kind, in native byte order."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return np.dtype(leaf.dtype.type)
    return np.dtype(np.float64) if isinstance(leaf, float) else np.dtype(dtype_name(leaf))


def filled_like(leaf: Any, value: Any) -> Any:
    """A new array of the leaf's library, shape and dtype, holding a number or the values of an ndarray."""
    from fallline.ops import namespace

    xp = namespace(leaf) or np
    if isinstance(value, np.ndarray):
        return xp.zeros_like(leaf) + like(leaf, value)
    return xp.full_like(leaf, value)


def like(leaf: Any, value: Any) -> Any:
    """`value` as an array of the leaf's library, dtype and device; a float stays one, as it leaves dtypes alone."""
    if isinstance(value, float):
        return value
    from array_api_compat import device

    from fallline.ops import namespace

    xp = namespace(leaf) or np
    where = {} if xp is np else {"device": device(leaf)}
    return xp.asarray(value, dtype=leaf.dtype if hasattr(leaf, "dtype") else float, **where)


def dtype_name(leaf: Any) -> str:
    """The dtype's name without its library: "float32"."""
    return str(getattr(leaf, "dtype", type(leaf).__name__)).removeprefix("torch.")


def _check_dtype(dtype: np.dtype, what: str) -> None:
    _check_name(dtype.name if dtype.kind == "f" else str(dtype), what)


def _check_name(name: str, what: str) -> None:
    if name not in ("float32", "float64"):
        whole = name.startswith(("int", "uint", "bool"))
        raise TypeError(f"{what} must be {SUPPORTED}. Got {name}{': convert it, .astype(float)' if whole else ''}.")


def view(leaf: Any) -> np.ndarray:
    """A leaf in host memory as a plain ndarray that shares its memory (a number: a copy)."""
    if type(leaf) is np.ndarray:
        return leaf
    if isinstance(leaf, np.ndarray):
        return leaf.view(np.ndarray)
    if isinstance(leaf, (float, np.floating)):
        return np.array(leaf)
    return leaf.detach().resolve_conj().resolve_neg().numpy()


def detached(leaf: Any) -> Any:
    """A leaf outside any autograd graph."""
    return leaf.detach() if hasattr(leaf, "detach") else leaf


def shaped_like(leaf: Any, array: np.ndarray) -> Any:
    """An array as what the leaf is: an ndarray (of its subclass), a torch tensor or a number."""
    if isinstance(leaf, np.ndarray):
        return array if type(leaf) is np.ndarray else array.view(type(leaf))
    if isinstance(leaf, (float, np.floating)):
        return type(leaf)(array)
    if type(leaf).__module__.split(".")[0] == "torch":
        return sys.modules["torch"].from_numpy(array)
    return array


def mark_changed(leaf: Any) -> None:
    """Tell torch that a tensor was written, so that autograd notices a stale saved value."""
    if isinstance(leaf, np.ndarray):
        return
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(leaf, torch.Tensor):
        torch.autograd.graph.increment_version(leaf)


def is_number(leaf: Any) -> bool:
    """Whether a leaf is a Python float or NumPy scalar, which cannot be written."""
    return isinstance(leaf, (float, np.floating))


def is_foreign(leaf: Any) -> bool:
    """Whether a leaf is an array of a library that does not share its memory with NumPy."""
    return not isinstance(leaf, (np.ndarray, float, np.floating)) and type(leaf).__module__.split(".")[0] != "torch"


def is_direct(array: np.ndarray) -> bool:
    """Whether a kernel can run on the array's memory as it lies."""
    flags = array.flags
    return flags.c_contiguous and flags.aligned and array.dtype.isnative


def non_finite(array: Any) -> str:
    """How many entries of an array in host memory are not finite, in words; empty if none."""
    if array.size <= 1 << 16:
        if np.isfinite(array).all():
            return ""
    else:  # maximum and minimum pass NaN on, and need no temporary array
        with np.errstate(all="ignore"):
            if np.isfinite(array.max()) and np.isfinite(array.min()):
                return ""
    nan = int(np.count_nonzero(np.isnan(array)))
    infinite = int(np.count_nonzero(np.isinf(array)))
    return " and ".join(f"{n:,} {word}" for n, word in ((nan, "NaN"), (infinite, "infinite")) if n)


# ---- memory ----------------------------------------------------------------------------------------------------------


# The data pointer is the first member of NumPy's public array struct, behind the object's header. Reading it there
# costs a tenth of `array.ctypes.data`; it is read anew for every call, as arrays can be resized.
_HEADER = object.__basicsize__


def _read_pointer(array: np.ndarray) -> int:
    return ctypes.c_void_p.from_address(id(array) + _HEADER).value or 0


def _ask_numpy(array: np.ndarray) -> int:
    return array.ctypes.data


_PROBE = np.arange(2.0)
_READABLE = sys.implementation.name == "cpython" and _read_pointer(_PROBE) == _PROBE.ctypes.data
address: Callable[[np.ndarray], int] = _read_pointer if _READABLE else _ask_numpy
"""Where an array's first element lies."""


def byte_range(array: np.ndarray) -> tuple[int, int]:
    """The addresses of an array's first byte and of the byte behind its last."""
    start = address(array)
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    from numpy.lib.array_utils import byte_bounds

    low, high = byte_bounds(array)
    return int(low), int(high)


def overlapping(array: np.ndarray, others: Sequence[tuple[int, int, np.ndarray]]) -> bool:
    """Whether an array shares an element with one of `others` (byte range and array)."""
    low, high = byte_range(array)
    return any(start < high and low < stop and _share(array, other) for start, stop, other in others)


def _share(a: np.ndarray, b: np.ndarray) -> bool:
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return a.size > 0 and b.size > 0
    try:
        return bool(np.shares_memory(a, b, max_work=cast(Any, 100_000)))
    except np.exceptions.TooHardError:
        return True  # rather refuse two arrays that may be disjoint than tear one


def check_disjoint(arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Refuse arrays that share an element, with each other or within one array.

    `w[:, 0]` and `w[:, 1]` share none, though their byte ranges overlap.
    """
    for array, name in zip(arrays, names):
        if self_overlapping(array):
            raise ValueError(f"{name} overlaps itself (indices share an element, as in a broadcast view): pass a copy.")
    ranges = sorted((*byte_range(a), k) for k, a in enumerate(arrays))
    open_: list[tuple[int, int, int]] = []
    for low, high, k in ranges:
        open_ = [r for r in open_ if r[1] > low]
        for _, _, other in open_:
            if _share(arrays[k], arrays[other]):
                first, second = sorted((k, other))
                same = address(arrays[k]) == address(arrays[other]) and arrays[k].size == arrays[other].size
                raise ValueError(f"{names[first]} and {names[second]} "
                                 f"{'are the same memory' if same else 'overlap in memory'}: a step would apply twice. "
                                 "Pass each parameter once.")
        open_.append((low, high, k))


def self_overlapping(array: np.ndarray) -> bool:
    """Whether two indices of one array may mean the same element."""
    if array.flags.c_contiguous or array.size == 0:
        return False
    reach = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape) if n > 1):
        if stride < reach:
            return True
        reach += stride * (length - 1)
    return False
