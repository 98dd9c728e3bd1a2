"""What to pass in the place of what is no tree and no array: by what it is, or by the library that it is of."""

from __future__ import annotations

import array
import contextlib
import decimal
import functools
import numbers
import re
import sys
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping
from typing import Any

import numpy as np

__all__ = ["as_array", "holds_arrays_of_jax", "instead", "is_converted", "is_masked", "is_tracer", "is_tree_of_jax",
           "jax_trees"]  # fmt: skip

# In a remedy "..." stands for what was given, as it does before a remedy that begins with ".".
_LIBRARIES = {
    "pandas": ".to_numpy(copy=True)", "polars": ".to_numpy(writable=True)", "xarray": ".to_numpy()",
    "dask": ".compute()", "sparse": ".todense()", "scipy": ".toarray()", "tensorflow": ".numpy()",
    "h5py": "numpy.asarray(...)", "zarr": "numpy.asarray(...)", "mlx": "numpy.asarray(...)",
}  # fmt: skip


def is_converted(value: Any) -> bool:
    """Whether a value is of a library whose arrays are to be converted, be they arrays as the standard has them."""
    return bool(_library(value))


def _library(value: Any) -> str:
    """The library of the table that a value's class, or one that it is made of, is of."""
    roots = (cls.__module__.split(".")[0] for cls in type(value).__mro__)
    return next((root for root in roots if root in _LIBRARIES), "")


def instead(value: Any, what: str = "") -> str:
    """The end of a sentence on a value that cannot be taken as `what`, with the remedy; "" where there is none.

    >>> instead({"a": 1.0}.values()), instead(memoryview(b""))
    (', which is no tree: pass a list, list(...)', ': pass numpy.asarray(...)')
    """
    if isinstance(value, type):
        return ""
    if (tail := as_array(value)) or getattr(value, "dtype", None) is not None:
        return tail
    remedy = next((remedy for applies, remedy in _TREES if applies(value)), "")
    if remedy == _MODULE:
        remedy = _of_module(what)
    if remedy:
        return f", which is no tree: pass {_of_it(remedy)}"
    is_of_equinox = "equinox" in sys.modules and callable(value) and re.match("(the )?parameter", what)  # a leaf there
    return ": pass equinox.filter(model, equinox.is_inexact_array)" if is_of_equinox else ""


def as_array(value: Any) -> str:
    """As `instead`, for what is an array of another kind, a number in other clothes or a buffer."""
    remedy = next((remedy for applies, remedy in _ARRAYS if applies(value)), _of_dtype(value))
    return f": pass {_of_it(remedy)}" if remedy else ""


def is_tracer(value: Any) -> bool:
    """Whether a value stands for arrays that JAX does not know yet."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def jax_trees() -> Any:
    """What JAX has for trees; None if it is not there, or another thread still imports it."""
    return getattr(sys.modules.get("jax"), "tree_util", None)


def is_tree_of_jax(value: Any) -> bool:
    """Whether JAX knows what is within a value, such as a registered dataclass or an equinox module."""
    own = jax_trees()
    return own is not None and not own.all_leaves([value])


def holds_arrays_of_jax(value: Any) -> bool:
    """Whether a value that can be called is a module: a tree of JAX with arrays in it."""
    if not callable(value) or isinstance(value, functools.partial) or not is_tree_of_jax(value):
        return False
    return any(getattr(leaf, "ndim", 0) for leaf in sys.modules["jax"].tree_util.tree_leaves(value))


def _of_it(remedy: str) -> str:
    return f"{remedy} of it" if remedy.startswith(".") else remedy


def _of_module(what: str) -> str:
    """What to pass where a torch module was, as its parameters or its gradients."""
    if re.match("(the )?grad", what, re.IGNORECASE):
        return "{name: p.grad for name, p in model.named_parameters()}"
    return "dict(model.named_parameters())"


def _has(name: str) -> Callable[[Any], bool]:
    return lambda value: hasattr(type(value), name)


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


def is_masked(value: Any) -> bool:
    """Whether a value is a masked array of NumPy, or a masked number."""
    masked = sys.modules.get("numpy.ma")  # NumPy imports it late, and it takes a while
    return masked is not None and isinstance(value, masked.MaskedArray)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_tensor_with(attribute: str) -> Callable[[Any], bool]:
    return lambda value: _is_tensor(value) and bool(getattr(value, attribute, False))


def _of_library(root: str, remedy: str) -> Callable[[Any], bool]:
    """Whether a value is of a library, and has the method of its remedy."""
    method = remedy[1:].partition("(")[0] if remedy.startswith(".") else "dtype"
    return lambda value: _library(value) == root and hasattr(value, method)


def _is_generator_of_pairs(value: Any) -> bool:
    """Whether a value is what torch modules give of names with parameters."""
    return getattr(value, "__name__", "") in ("named_parameters", "named_buffers")


def _is_sparse_tensor(value: Any) -> bool:
    return _is_tensor(value) and value.layout is not sys.modules["torch"].strided


def _holds_arrays(value: Any) -> bool:
    """Whether a value's attributes are arrays: a dataclass, or another object that is a record."""
    held: dict[str, Any] = getattr(value, "__dict__", {})
    return bool(held) and all(not name.startswith("_") and (hasattr(item, "dtype") or isinstance(item, _CONTAINERS))
                              for name, item in held.items())


def _holds_arrays_in_slots(value: Any) -> bool:
    slots = getattr(type(value), "__slots__", ())
    return not isinstance(slots, str) and any(hasattr(getattr(value, name, None), "dtype") for name in slots)


def _is_text_of_a_number(value: Any) -> bool:
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and bool(np.isfinite(float(value)))
    return False


_CONTAINERS = (float, dict, list, tuple)
_MODULE = "the parameters of a module"
_ARRAYS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: is_converted(value) and hasattr(value, "data_vars"),  # a Dataset of xarray
     "{name: array.to_numpy() for name, array in ....items()}"),
    *((_of_library(root, remedy), remedy) for root, remedy in _LIBRARIES.items()),
    (_has("todense"), ".todense()"), (is_masked, ".filled(0) or .data"),
    (_is_tensor_with("is_quantized"), ".dequantize()"), (_is_tensor_with("is_nested"), ".unbind()"),
    (_is_sparse_tensor, ".to_dense()"), (_has("get_mask"), ".to_tensor(0)"),
    (_is_tensor_with("is_meta"), "torch.zeros_like(..., device='cpu')"),
    (_is_tensor_with("fake_mode"), "torch.zeros(....shape, dtype=....dtype)"),
    (_is(memoryview, array.array, bytearray), "numpy.asarray(...)"),
    (_is(numbers.Real, decimal.Decimal), "float(...)"), (_is_text_of_a_number, "float(...)"),
)
_TREES: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_has("named_parameters"), _MODULE), (_is_generator_of_pairs, "dict(...)"),
    (_is(Mapping, ItemsView), "dict(...)"), (_is(str, bytes, KeysView), ""), (_is(Iterable), "a list, list(...)"),
    (_holds_arrays, "vars(...)"),
    (_holds_arrays_in_slots, "{name: getattr(..., name) for name in ....__slots__}"),
)


def _of_dtype(value: Any) -> str:
    """What makes an array of another dtype one of floats."""
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "names", None):
        return "{name: ...[name] for name in ....dtype.names}"
    if dtype is None or re.search(r"\bb?float(16|32|64)|complex|key|void", str(dtype)):
        return ""
    return ".float()" if _is_tensor(value) else ".astype(float)" if hasattr(value, "astype") else ""
