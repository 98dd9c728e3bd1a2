"""What a state dictionary has of an optimizer besides settings and arrays: a new field is an entry of `FIELDS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["FIELDS", "FORMAT", "LATER", "Field", "checked", "count", "of", "put", "starts"]


class Field(NamedTuple):
    """A value that JSON takes, the attribute of this name of what steps (`fallline._optimizer.stepping.Stepper`)."""

    check: Callable[[Any, str], Any]  # of a value and its name: the value; raises ValueError for what it cannot be
    start: Any  # what it begins as, and what it was in a format that lacks it
    since: int = 1  # the format that it came with


def count(value: Any, what: str) -> int:
    """A number of steps or calls of a state; raises ValueError for what is none."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{what} of the state must be a whole number from 0 to 2**63 - 1. Got {value!r}.")
    return value


FIELDS = {"skipped": Field(count, 0)}
LATER = {"accumulate.weight": 1.0}  # hyper-parameters that older states lack, and what they were there
FORMAT = max(field.since for field in FIELDS.values())  # which is written; those before it are read


OF_TORCH = (" It is torch's: an optimizer of fallline.dialects.torch takes it, load_state_dict(d, dialect=\"torch\"), "
            "and one of fallline.torch as it is.")


def checked(d: Any, keys: Iterable[str], what: str) -> dict[str, Any]:
    """The fields of a state of any format that is read; `keys` are those that it has besides.

    Raises ValueError for anything else.
    """
    version = d.get("format", FORMAT) if isinstance(d, Mapping) else FORMAT
    if version not in range(1, FORMAT + 1):
        raise ValueError(f"The state has the format {version!r}; this version of fallline reads "
                         f"{' and '.join(map(str, range(1, FORMAT + 1)))}.")
    wanted = [*keys, *(name for name, field in FIELDS.items() if field.since <= version)]
    if not isinstance(d, Mapping) or set(d) != set(wanted):
        got = f"the keys {', '.join(map(str, d)) or 'none'}" if isinstance(d, Mapping) else f"a {type(d).__name__}"
        raise ValueError(f"{what} is a dict as state_dict() gives it, with the keys {', '.join(wanted)}. Got {got}."
                         f"{OF_TORCH if isinstance(d, Mapping) and 'param_groups' in d else ''}")
    return {name: field.check(d.get(name, field.start), name) for name, field in FIELDS.items()}


def starts() -> dict[str, Any]:
    """The fields as they begin."""
    return {name: field.start for name, field in FIELDS.items()}


def of(owner: Any) -> dict[str, Any]:
    """The fields of what has them."""
    return {name: getattr(owner, name) for name in FIELDS}


def put(owner: Any, values: Mapping[str, Any]) -> None:
    """Give these fields to what has them."""
    for name in FIELDS:
        setattr(owner, name, values[name])
