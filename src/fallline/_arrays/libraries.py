"""What each library of arrays does in its own way. None is imported: a leaf of it shows that it is there.

A library of the array API standard needs no class of its own. Any other is a class of the methods in which it differs
from that, and a line of `_library`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fallline._arrays.containers import is_container
from fallline._arrays.dtypes import CASTABLE, LACKED, SUPPORTED, dtype_named
from fallline._arrays.namespaces import namespace
from fallline._messages.remedies import instead, is_converted, is_masked, is_tracer
from fallline._messages.values import brief
from fallline.errors import FalllineError

__all__ = ["LIBRARIES", "ArrayApi", "library_of", "reading"]


class ArrayApi:
    """Arrays as the array API standard has them, in memory that NumPy does not share: of JAX, CuPy, Dask..."""

    is_foreign = True
    is_number = False
    is_plain_tensor = False
    is_jax = False

    def name(self, leaf: Any) -> str:
        """See `leaves.library`."""
        return str((namespace(leaf) or np).__name__).removeprefix("array_api_compat.").split(".")[0]

    def form(self, leaf: Any) -> Any:
        """See `leaves.form`."""
        return None

    def kind(self, leaf: Any, what: str) -> str:
        """See `leaves.kind_of`, but for the dtype."""
        if is_tracer(leaf):
            raise TypeError(f"{what} is a JAX tracer: an optimizer keeps state and cannot run inside jit, grad or "
                            "vmap. Write fallline.optax.transform(opt) there, or call step outside, on the gradients "
                            "that a jitted function returns.")
        if isinstance(leaf, (int, np.generic)):
            raise TypeError(f"{what} must be {SUPPORTED}. Got {brief(leaf)} ({type(leaf).__name__}){instead(leaf)}.")
        if is_container(leaf):
            raise TypeError(f"{what} must be one array, as the parameters have it. Got a {type(leaf).__name__}.")
        is_array = hasattr(leaf, "__array_namespace__") or _root(leaf) == "cupy"
        if not is_array or is_converted(leaf) or isinstance(leaf, type):
            got = brief(leaf) if isinstance(leaf, type) else type(leaf).__name__
            raise TypeError(f"{what} must be an array of {SUPPORTED}. Got {got}{instead(leaf, what)}.")
        return "foreign"

    def check(self, leaf: Any, what: str, written: bool) -> None:
        """Raise TypeError if the numbers of a leaf cannot be read, or written if they are to be."""

    def dtype_name(self, leaf: Any) -> str:
        """The dtype's name without its library."""
        return str(leaf.dtype).split(".")[-1]

    def dtype(self, leaf: Any) -> np.dtype:
        """The dtype in native byte order."""
        return dtype_named(self.dtype_name(leaf))

    def view(self, leaf: Any) -> np.ndarray:
        """A leaf in host memory as a plain ndarray that shares its memory."""
        return self.host(leaf)

    def shared(self, leaf: Any) -> Any:
        """See `leaves.shared`."""
        return leaf

    def in_memory(self, leaf: Any) -> np.ndarray | None:
        """The array whose memory a leaf shares, if there is one."""
        return None

    def host(self, leaf: Any) -> np.ndarray:
        """A plain ndarray in host memory, wherever the leaf is."""
        try:
            return np.asarray(leaf.get() if _root(leaf) == "cupy" else leaf)
        except RuntimeError:  # as it is on another device, of a library that has but the standard's way
            return np.from_dlpack(leaf)

    def detached(self, leaf: Any) -> Any:
        """The leaf outside any autograd graph."""
        return leaf

    def copy(self, leaf: Any) -> Any:
        """A copy of what can be written; what is no array at all, such as a dict of another class, is refused later."""
        duplicate = getattr(leaf, "copy", None) if hasattr(leaf, "dtype") else None  # JAX has one that costs little
        if duplicate is None and hasattr(leaf, "__array_namespace__"):
            return namespace(leaf).asarray(leaf, copy=True)
        return duplicate() if duplicate is not None else leaf

    def cast(self, leaf: Any, dtype: np.dtype) -> Any:
        """The leaf in a dtype."""
        xp = namespace(leaf)
        return leaf if self.dtype(leaf) == dtype else xp.astype(leaf, getattr(xp, dtype.name))

    def new_like(self, leaf: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A new C-contiguous array of the leaf's kind if that lies in host memory; else a plain one."""
        return np.empty(shape, dtype)

    def model(self, leaf: Any) -> Any:
        """What to keep of a leaf for `new_like`; None where a plain array is all that it makes."""
        return None

    def mark_changed(self, leaves: Sequence[Any]) -> None:
        """Know that these leaves, all of it, were written."""


class Jax(ArrayApi):
    """Arrays of JAX; what it traces is not of their class."""

    is_jax = True

    def kind(self, leaf: Any, what: str) -> str:
        if leaf.is_deleted():
            raise TypeError(f"{what} is a deleted JAX array, such as one donated to a jitted function: pass the "
                            "array that the function returned.")
        return "foreign"

    def name(self, leaf: Any) -> str:
        return "jax"

    def form(self, leaf: Any) -> Any:
        return None if leaf.is_deleted() else leaf.aval  # one and the same of all that a compiled function returns

    def dtype_name(self, leaf: Any) -> str:
        return str(leaf.dtype.name)

    def cast(self, leaf: Any, dtype: np.dtype) -> Any:
        return leaf if leaf.dtype == dtype else leaf.astype(dtype)


class Numpy(ArrayApi):
    """Arrays of NumPy; a subclass keeps what it carries."""

    is_foreign = False

    def kind(self, leaf: Any, what: str) -> str:
        if is_masked(leaf):
            raise TypeError(f"{what} is a masked array; a step would ignore the mask{instead(leaf)}.")
        return "host"

    def dtype_name(self, leaf: Any) -> str:
        return leaf.dtype.name if leaf.dtype.names is None else str(leaf.dtype)

    def dtype(self, leaf: Any) -> np.dtype:
        return np.dtype(leaf.dtype.type)

    def view(self, leaf: Any) -> np.ndarray:
        return leaf if type(leaf) is np.ndarray else leaf.view(np.ndarray)

    def in_memory(self, leaf: Any) -> np.ndarray | None:
        return self.view(leaf)

    def copy(self, leaf: Any) -> Any:
        return leaf.copy()

    def cast(self, leaf: Any, dtype: np.dtype) -> Any:
        return leaf.astype(dtype, copy=False)  # which notices another byte order, too

    def new_like(self, leaf: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return np.empty(shape, dtype) if type(leaf) is np.ndarray else np.empty_like(leaf, dtype, "C", shape=shape)

    def model(self, leaf: Any) -> Any:
        return None if type(leaf) is np.ndarray else np.empty_like(leaf, shape=(0,) * leaf.ndim)


class Number(ArrayApi):
    """Python's and NumPy's scalars, which cannot be written."""

    is_foreign = False
    is_number = True

    def kind(self, leaf: Any, what: str) -> str:
        return "number"

    def dtype_name(self, leaf: Any) -> str:
        if isinstance(leaf, np.generic):
            return leaf.dtype.name
        return "float64" if isinstance(leaf, float) else "complex128"

    def dtype(self, leaf: Any) -> np.dtype:
        return np.asarray(leaf).dtype

    def view(self, leaf: Any) -> np.ndarray:
        return np.array(leaf)

    def cast(self, leaf: Any, dtype: np.dtype) -> Any:
        return leaf.astype(dtype, copy=False) if isinstance(leaf, np.generic) else leaf

    def model(self, leaf: Any) -> Any:
        return leaf


class Torch(ArrayApi):
    """Tensors, which share their memory with arrays of NumPy if they are dense and the CPU's."""

    is_foreign = False

    def __init__(self, kind: type) -> None:
        self._torch = sys.modules["torch"]
        self.is_plain_tensor = kind in (self._torch.Tensor, self._torch.nn.Parameter)
        self._lacked = {getattr(self._torch, name, None): name for name in LACKED}

    def kind(self, leaf: Any, what: str) -> str:
        if leaf.layout is not self._torch.strided or leaf.is_nested:
            raise TypeError(f"{what} is a {'nested' if leaf.is_nested else leaf.layout} tensor{instead(leaf)}.")
        return "host" if leaf.device.type == "cpu" else "foreign"

    def check(self, leaf: Any, what: str, written: bool) -> None:
        in_host = leaf.device.type == "cpu"
        if in_host:
            with reading(leaf, what):
                self.host(leaf)
        if in_host and written:  # its negation would be lost
            for is_lazy, word, remedy in ((leaf.is_neg(), "negated", "neg"), (leaf.is_conj(), "conjugated", "conj")):
                if is_lazy:
                    raise TypeError(f"{what} is a lazily {word} view: call .resolve_{remedy}() on it first.")

    def view(self, leaf: Any) -> np.ndarray:
        return self._as_array(leaf.detach().resolve_conj().resolve_neg())

    def shared(self, leaf: Any) -> Any:
        return self._as_array(leaf.detach()) if self.is_plain_tensor else leaf

    def _as_array(self, tensor: Any) -> np.ndarray:
        if tensor.dtype not in self._lacked:
            return tensor.numpy()
        bits = getattr(self._torch, f"int{8 * tensor.itemsize}")  # NumPy knows torch's integers only
        return tensor.view(bits).numpy().view(dtype_named(self._lacked[tensor.dtype]))

    def in_memory(self, leaf: Any) -> np.ndarray | None:
        if leaf.device.type != "cpu" or leaf.layout is not self._torch.strided:
            return None
        try:
            return self.view(leaf)
        except TypeError:  # of a dtype that NumPy lacks, which no group steps
            return None

    def host(self, leaf: Any) -> np.ndarray:
        return self._as_array(leaf.detach().cpu().resolve_conj().resolve_neg())

    def detached(self, leaf: Any) -> Any:
        return leaf.detach() if leaf.requires_grad else leaf

    def copy(self, leaf: Any) -> Any:
        return leaf.detach().clone().requires_grad_(leaf.requires_grad)

    def new_like(self, leaf: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        new = np.empty(shape, dtype)
        if dtype.name in LACKED:
            return self._torch.from_numpy(new.view(f"i{dtype.itemsize}")).view(getattr(self._torch, dtype.name))
        return self._torch.from_numpy(new)

    def model(self, leaf: Any) -> Any:
        return leaf.new_empty(0) if leaf.device.type == "cpu" else None

    def mark_changed(self, leaves: Sequence[Any]) -> None:
        self._torch.autograd.graph.increment_version(leaves)  # so that it notices a stale saved value


def _library(kind: type) -> ArrayApi:
    if issubclass(kind, np.ndarray):
        return Numpy()
    if issubclass(kind, (float, complex)) or (issubclass(kind, np.generic) and np.dtype(kind).name in CASTABLE):
        return Number()
    tensors = getattr(sys.modules.get("torch"), "Tensor", ())  # none yet while another thread imports it
    if issubclass(kind, tensors):
        return Torch(kind)
    is_jax = kind.__module__.split(".")[0] == "jaxlib" and hasattr(kind, "__array_namespace__")
    return Jax() if is_jax else ArrayApi()


class _Libraries(dict[type, ArrayApi]):
    def __missing__(self, kind: type) -> ArrayApi:
        self[kind] = library = _library(kind)
        return library


LIBRARIES = _Libraries()
"""The library of leaves of a type; that of the standard for what is no array at all, whose `kind` refuses it."""


def library_of(leaf: Any) -> ArrayApi:
    """The library that a leaf is of."""
    return LIBRARIES[type(leaf)]


@contextmanager
def reading(leaf: Any, what: str) -> Iterator[None]:
    """Have what another library raises, as it is asked for the numbers of a leaf, be a TypeError that names that."""
    try:
        yield
    except (FalllineError, MemoryError):
        raise
    except Exception as error:
        raise TypeError(f"{what} is a {type(leaf).__name__} of {_root(leaf)} whose numbers cannot be read"
                        f"{instead(leaf)}.") from error


def _root(leaf: Any) -> str:
    """The name of the package that a leaf's class is of."""
    return type(leaf).__module__.split(".")[0]
