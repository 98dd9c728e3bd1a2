"""Tensors of torch taken together: one operation on all of them is one call of torch.

Where a formula chooses by a comparison, which torch has for no list, the choices that rules make often (a maximum, what
is stored in place of a subnormal number) are put in words that it has; others are made tensor by tensor.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Batch", "are_finite", "norms", "put_all", "without_graph"]


class Comparison(NamedTuple):
    """A comparison of a batch, not made yet."""

    op: Callable[[Any, Any], Any]
    a: Any
    b: Any

    def made(self, k: int) -> Any:
        """Of the tensors in one place."""
        return self.op(_at(self.a, k), _at(self.b, k))


class Batch:
    """Tensors of one library, device and dtype, with Python's operators on all of them, beside another batch or a
    number; what they are made of is remembered where a choice may ask for it."""

    __slots__ = ("magnitude_of", "tensors")

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.tensors = list(tensors)
        self.magnitude_of: Batch | None = None  # this is its absolute value

    @property
    def dtype(self) -> Any:
        """That of all."""
        return self.tensors[0].dtype

    @property
    def device(self) -> Any:
        """That of all."""
        return self.tensors[0].device

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return _Words

    def _do(self, name: str, *others: Any) -> Batch:
        import torch

        plain = [other.tensors if isinstance(other, Batch) else other for other in others]
        return Batch(getattr(torch, f"_foreach_{name}")(self.tensors, *plain))

    def __add__(self, other: Any) -> Batch:
        return self._do("add", other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Batch:
        return self._do("mul", other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Batch:
        return self._do("sub", other)

    def __rsub__(self, other: Any) -> Batch:
        return -self + other

    def __truediv__(self, other: Any) -> Batch:
        return self._do("div", other)

    def __rtruediv__(self, other: float) -> Batch:
        return self._do("reciprocal") * other

    def __neg__(self) -> Batch:
        return self._do("neg")

    def __abs__(self) -> Batch:
        found = self._do("abs")
        found.magnitude_of = self
        return found

    def __lt__(self, other: Any) -> Any:
        return Comparison(operator.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return Comparison(operator.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return Comparison(operator.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return Comparison(operator.ge, self, other)

    def __eq__(self, other: object) -> Any:
        return Comparison(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return Comparison(operator.ne, self, other)

    __hash__ = None  # type: ignore[assignment]


class _Words:
    """What formulas ask of an array namespace."""

    @staticmethod
    def sqrt(batch: Batch) -> Batch:
        return batch._do("sqrt")

    @staticmethod
    def asarray(value: float, **_: Any) -> float:
        return value

    @staticmethod
    def full_like(batch: Batch, value: float) -> Batch:
        import torch

        return Batch([torch.full_like(tensor, value) for tensor in batch.tensors])

    @staticmethod
    def where(chosen: Any, a: Any, b: Any) -> Any:
        if isinstance(chosen, Comparison):
            known = _known(chosen, a, b)
            if known is not None:
                return known
        return _each(chosen, a, b)


def _known(chosen: Comparison, a: Any, b: Any) -> Any:
    """What a choice is in words that torch has for lists; None for any other. Zeros may come out with another sign."""
    first, second = chosen.a, chosen.b
    if chosen.op is operator.eq and second == 0.0 and isinstance(second, float) and a == 0.0 and b is first:
        return b  # 0 by another sign
    if chosen.op is operator.eq and first is second and b is first:
        return _UnlessNan(a, first)
    if chosen.op is operator.lt and isinstance(second, float) and a == 0.0 and isinstance(a, float) and (
            first.magnitude_of is b):
        return b * (first - second)._do("sign")._do("add", 1.0)._do("clamp_max", 1.0)
    if a is first and isinstance(b, _UnlessNan) and b.nan is a and b.value is second:
        name = {operator.gt: "maximum", operator.lt: "minimum"}.get(chosen.op)
        return None if name is None else a._do(name, second)
    return None


class _UnlessNan(Batch):
    """A value, or NaN where a batch is; its tensors are made if they are asked for."""

    __slots__ = ("made", "nan", "value")

    def __init__(self, value: Any, nan: Batch) -> None:
        self.value, self.nan, self.magnitude_of = value, nan, None
        self.made: list[Any] | None = None

    @property
    def tensors(self) -> list[Any]:  # type: ignore[override]
        if self.made is None:
            self.made = _each(Comparison(operator.eq, self.nan, self.nan), self.value, self.nan).tensors
        return self.made


def _each(chosen: Any, a: Any, b: Any) -> Batch:
    """A choice made tensor by tensor."""
    import torch

    size = next(len(own.tensors) for own in (a, b, chosen.a, chosen.b) if isinstance(own, Batch))
    return Batch([torch.where(chosen.made(k), _at(a, k), _at(b, k)) for k in range(size)])


def _at(value: Any, k: int) -> Any:
    return value.tensors[k] if isinstance(value, Batch) else value


def without_graph() -> Any:
    """What keeps torch from recording what is computed, as parameters may be trained."""
    import torch

    return torch.no_grad()


def are_finite(tensors: Sequence[Any]) -> bool:
    """Whether all are known to be finite, by a norm of all; False too where their numbers cannot be read."""
    import torch

    found = torch.stack(torch._foreach_norm(list(tensors), math.inf)).isfinite().all()
    return not found.is_meta and bool(found)


def norms(batch: Any) -> list[float] | None:
    """The norm of each tensor, in double precision, where the squares of what is shorter neither overflow nor vanish;
    None where torch cannot say them so."""
    import torch

    if not isinstance(batch, Batch) or batch.dtype == torch.float64:
        return None
    try:
        found = torch._foreach_norm(batch.tensors, 2, dtype=torch.float64)
    except (TypeError, RuntimeError):  # of an older torch, and of devices without double precision
        return None
    return [float(norm) for norm in torch.stack(found).tolist()]


def put_all(old: Sequence[Any], new: Sequence[Any]) -> None:
    """Put new values into tensors, by one call."""
    import torch

    with torch.no_grad():
        torch._foreach_copy_(list(old), list(new))
