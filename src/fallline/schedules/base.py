"""What all schedules share: fields that are checked as they are annotated, and a linear warmup from 0."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import numbers
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import (
    Annotated,
    Any,
    NamedTuple,
    SupportsIndex,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from fallline._messages.callables import is_function, itself
from fallline._messages.remedies import is_tracer
from fallline._messages.suggestions import unknown_setting
from fallline._messages.values import brief, shown
from fallline.schedules.words import where

__all__ = ["Count", "Factor", "Function", "Length", "Level", "Schedule", "Share", "Span", "Value", "behind",
           "check_boundaries", "made", "whole"]  # fmt: skip


class Kind(NamedTuple):
    """What a parameter of a schedule may be; `text` completes the sentence "steps of cosine must be ..."."""

    text: str
    convert: Callable[[Any], Any]
    holds: Callable[[Any], bool]


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return float(value)


def whole(value: Any) -> int:
    """A whole number as an int; raises TypeError for anything else."""
    if isinstance(value, float) and value.is_integer():  # as in steps=1e4
        return int(value)
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _function(value: Any) -> Any:
    if not is_function(value):
        raise TypeError
    return value


def _steps(value: Any) -> float:
    """A number of steps, as an int if it is whole."""
    number = _real(value)
    return int(number) if number.is_integer() else number


Value = Annotated[float, Kind("a finite number", _real, math.isfinite)]
Level = Annotated[float, Kind("a finite number ≥ 0", _real, lambda v: 0 <= v < math.inf)]
Factor = Annotated[float, Kind("a finite number > 0", _real, lambda v: 0 < v < math.inf)]
Share = Annotated[float, Kind("a number between 0 and 1", _real, lambda v: 0 < v < 1)]
Count = Annotated[int, Kind("a whole number ≥ 0", whole, lambda n: n >= 0)]
Length = Annotated[int, Kind("a whole number ≥ 1", whole, lambda n: n >= 1)]
Span = Annotated[float, Kind("a finite number ≥ 0", _steps, lambda n: 0 <= n < math.inf)]
Function = Annotated[Callable[[int], float], Kind("a schedule (for a number write constant(number)) or a function of "
                                                  "the number of completed steps", _function, lambda f: True)]

MEANING = {
    "peak": "the value where the descent begins",
    "value": "the value when warmup is over",
    "values": "the value up to each boundary, and behind the last",
    "steps": "the number of completed steps, those of warmup included, from which on the value is `end`",
    "warmup": "steps of linear rise from 0, which is the value at t = 0",
    "end": "the last value, which is kept",
    "power": "that of the share of steps that is left",
    "factor": "what the value is multiplied by over `every` steps",
    "every": "that many steps, counted from the end of warmup",
    "period": "steps of the first descent, counted from the end of warmup",
    "growth": "how many times longer each descent is than the one before",
    "timescale": "steps after which the value is peak/√2, counted from the end of warmup",
    "rise": "steps from `start` to `peak`, counted from the end of warmup",
    "start": "the value where the rise begins",
    "decay": "the last steps, those of the descent to `end`",
    "schedules": "in order; each counts its own steps from 0",
    "boundaries": "the numbers of completed steps, rising, at which the next one takes over",
    "patience": "how many values in a row may be no better",
    "threshold": "the share of the best value by which one has to be below it",
    "cooldown": "so many values behind a reduction do not count as no better",
    "window": "of so many values the mean counts as one",
    "after": "the number of completed steps up to which there is no mean",
    "heard": "what was heard so far, as a state has it: the reductions, ..., the best value",
    "plateau.peak": "the value before the first reduction",
    "plateau.factor": "what the value is multiplied by when values have not become better",
    "plateau.end": "the least value",
}


class Schedule:
    """A hyper-parameter's value as a function of the number of completed steps.

    Make one by its name, such as `cosine`, and call it with t, an integer ≥ 0; any other t raises TypeError or
    ValueError. It prints as the call that makes it, compares by value, and is immutable. One that `hears` values
    changes with them, and each optimizer has its own copy.

    In functions that JAX traces (jit, scan, vmap), t may be a traced array of integers, of any shape. The values are an
    array of that shape: float64 if `jax_enable_x64` is set, otherwise float64 rounded to float32. A negative t, which
    cannot be refused there, counts as 0. One that hears values raises TypeError.
    """

    warmup: int = 0

    def __new__(cls, *args: Any, **given: Any) -> Schedule:
        if cls is Schedule:
            raise TypeError("Schedule is what all schedules are: make one by name, such as cosine(1e-3, steps=100).")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, (kind, several) in _kinds(cls).items():
            value = getattr(self, name)
            if value is None and getattr(cls, name, name) is None:  # where None is the dataclass's default
                value = self._default(name)
            found = self._several(name, value, kind) if several else self._checked(name, value, kind)
            object.__setattr__(self, name, found)
        self._check()

    def _default(self, name: str) -> Any:
        """The value of a parameter that was not given and depends on those before it."""

    def _several(self, name: str, values: Any, kind: Kind) -> tuple[Any, ...]:
        items = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(items, (list, tuple, range)):
            raise TypeError(f"{name} of {type(self).__name__} must be a list or tuple. Got {brief(values)}.")
        return tuple(self._checked(f"{name}[{k}]", value, kind) for k, value in enumerate(items))

    def _checked(self, name: str, value: Any, kind: Kind) -> Any:
        is_array = getattr(value, "shape", None) == ()
        try:
            plain = value.item() if is_array and hasattr(value, "item") else float(value) if is_array else value
            found = kind.convert(plain)
        except TypeError:
            hint = itself(value) if kind.convert is _function else ""
            raise TypeError(f"{name} of {type(self).__name__} must be {kind.text}. Got {brief(value)}{hint}.") from None
        except OverflowError:  # an integer beyond float64
            found = math.inf
        self._require(kind.holds(found), name, kind.text, value)
        return found

    def _require(self, holds: bool, name: str, text: str, value: Any) -> None:
        if not holds:
            raise ValueError(f"{name} of {type(self).__name__} must be {text}. Got {brief(value)}.")

    def _check(self) -> None:
        """Raise ValueError if the parameters do not go together."""

    def __repr__(self) -> str:
        own = getattr(self, "__dataclass_fields__", ())
        parts = [f"{name}={shown(getattr(self, name), items=sys.maxsize)}" for name in own]  # all, as files are of it
        return f"{type(self).__qualname__}({', '.join(parts)})"

    def __call__(self, t: SupportsIndex) -> float:
        try:
            n = operator.index(t)
        except TypeError:
            if is_tracer(t):
                return self._traced(self._count(t))
            several = ": for several write [schedule(t) for t in ...]" if getattr(t, "shape", ()) else ""
            raise TypeError(f"{self._must()} Got {brief(t)}{several}.") from None
        if n < 0:
            raise ValueError(f"{self._must()} Got {n}.")
        return self._value(n)

    def _must(self) -> str:
        return f"t of {type(self).__name__} must be a whole number ≥ 0, that of the completed steps."

    def _count(self, t: Any) -> Any:
        """What JAX traces as counts, 0 where it is below; raises TypeError if it is not whole, or values are heard."""
        jnp = sys.modules["jax"].numpy
        if self.hears:
            raise TypeError(f"t of {type(self).__name__} must be known, as it follows values that opt.hear is told, "
                            "which JAX cannot trace: use optax.contrib.reduce_on_plateau, or step and hear outside of "
                            f"jit. Got {brief(t)}.")
        if not jnp.issubdtype(t.dtype, jnp.integer):
            raise TypeError(f"{self._must()} Got {brief(t)}.")
        return jnp.maximum(t, 0)

    def _traced(self, t: Any) -> Any:
        """The values at counts that JAX traces, computed in float64, in the dtype that it has for Python's floats."""
        jax = sys.modules["jax"]
        dtype = jax.numpy.result_type(float)
        with jax.enable_x64(True):
            try:
                value = self._value(t.astype(float))
            except OverflowError:
                raise ValueError(f"Steps of {type(self).__name__} must be below 2**63 for a t that JAX traces. Got "
                                 f"{self}.") from None
            return jax.numpy.broadcast_to(jax.numpy.asarray(value, dtype), t.shape)

    def _value(self, t: Any) -> Any:
        """The value after t completed steps, an int or a traced float64."""
        warmup = self.warmup
        rising = warmup > 0 and t < warmup
        if rising is False:  # known now, and no more to compute
            return self._after(t - warmup)
        s, share = where(rising, (0, t / warmup), (t - warmup, 1.0))
        return self._after(s) * share

    def _after(self, s: Any) -> Any:
        """The value s steps after the end of warmup, written in words that take traced numbers too."""
        raise NotImplementedError

    @property
    def hears(self) -> bool:
        """Whether it depends on values too (`plateau`)."""
        return False

    def _hear(self, value: float, t: int) -> None:
        """Take note of a value, of which the less the better, after t completed steps."""

    def _forget(self) -> None:
        """Forget the values."""

    def _extent(self) -> int:
        """How many steps show what there is to see."""
        raise NotImplementedError


def check_boundaries(schedule: Schedule, boundaries: Sequence[int], parts: int, what: str) -> None:
    """Raise ValueError if boundaries are not between so many parts, or do not rise."""
    if parts != len(boundaries) + 1:
        raise ValueError(f"{what} of {type(schedule).__name__} must be one more than boundaries. "
                         f"Got {parts} {what} and {len(boundaries)} boundaries.")
    rising = all(a < b for a, b in itertools.pairwise(boundaries))
    schedule._require(rising, "boundaries", "rising", boundaries)


def behind(boundaries: Sequence[int]) -> int:
    """As far behind the last boundary as it is from the one before it."""
    first, last = [0, *boundaries][-2:] if boundaries else (0, 50)
    return 2 * last - first


Made = TypeVar("Made", bound=type[Schedule])


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def made(cls: Made) -> Made:
    """A class of schedules as a frozen dataclass that says what its parameters are, also to those who mistake them."""
    own: Any = dataclass(frozen=True, repr=False)(cls)
    own.__doc__ = _documented(own)
    init = own.__init__

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        _check_given(own, args, given)
        init(self, *args, **given)

    own.__init__ = checked
    return own


def _documented(cls: Any) -> str:
    """The docstring of a schedule with its parameters, before the example."""
    head, mark, example = inspect.cleandoc(cls.__doc__).partition("\n\n>>>")
    known = [f"{name}: {MEANING.get(f'{cls.__name__}.{name}') or MEANING[name]}; {'each ' * several}{kind.text}"
             for name, (kind, several) in _kinds(cls).items()]
    raises = "\nRaises TypeError or ValueError, naming the parameter, for what it cannot be."
    return "\n".join([head, "\nParameters\n----------", *known, raises]) + mark + example


def _check_given(cls: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
    """Refuse arguments that a schedule does not have, or of which one lacks, in one sentence."""
    name, known = cls.__name__, {f.name: f for f in fields(cls)}
    unknown_setting(name, given, known, "parameter")
    first = [key for key, f in known.items() if not f.kw_only]
    if len(args) > len(first):
        others = ", ".join(key for key in known if key not in first)
        raise TypeError(f"{name} takes at most {len(first)} parameters by position ({', '.join(first)})"
                        f"{f', {others} by name' * bool(others)}. Got {len(args)}.")
    for key in first[: len(args)]:
        if key in given:
            raise TypeError(f"{key} of {name} was given twice, by position and by name.")
    found = {*first[: len(args)], *given}
    if lacking := [key for key, f in known.items() if f.default is MISSING and key not in found]:
        own = ", ".join(key if f.default is MISSING else f"{key}={f.default}" for key, f in known.items())
        raise TypeError(f"{name} needs {' and '.join(lacking)}. Its parameters: {own}.")


@functools.cache
def _kinds(cls: Any) -> dict[str, tuple[Kind, bool]]:
    """Of each field of a schedule what it may be, and whether it holds several of these."""
    hints, found = get_type_hints(cls, include_extras=True), {}
    for f in fields(cls):
        hint = hints[f.name]
        several = get_origin(hint) is Sequence
        for kind in get_args(get_args(hint)[0] if several else hint):
            if isinstance(kind, Kind):
                found[f.name] = kind, several
    return found
