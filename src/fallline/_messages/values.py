"""Values as people read them in `repr` and messages: in one line, without addresses, and however large at no cost."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

__all__ = ["brief", "shown"]

NUMBERS = 8  # an array of more is shown by its shape
ITEMS = 12  # of a longer list or dict the first ones are shown
ROOM = 60  # characters that messages have for a value


def shown(value: Any, items: int = ITEMS) -> str:
    """A value as `repr` has it, but for functions, which go by their names, large arrays and long lists.

    >>> shown({"W": lambda t: 0.1, "b": [0.5] * 1000}, items=2)
    "{'W': <lambda>, 'b': [0.5, 0.5, ... 998 more]}"
    """
    if isinstance(value, dict):
        return f"{{{_listed((f'{key!r}: {shown(item, items)}' for key, item in value.items()), len(value), items)}}}"
    if isinstance(value, (list, tuple)):
        return _shown_sequence(value, items)
    if isinstance(value, (FunctionType, BuiltinFunctionType, MethodType)):
        return value.__qualname__.split("<locals>.")[-1]
    if isinstance(value, functools.partial):
        given = [*map(shown, value.args), *(f"{name}={shown(item)}" for name, item in value.keywords.items())]
        return f"{shown(value.func)}({', '.join(given)})"
    shape = value.shape if hasattr(type(value), "shape") else None
    if isinstance(shape, tuple) and math.prod(shape) > NUMBERS:
        return f"<{type(value).__name__} of shape {tuple(shape)}>"
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python will print
        return f"<{type(value).__name__}>"
    return text if isinstance(value, str) else re.sub(" at 0x[0-9a-f]+", "", re.sub(r"\n\s*", " ", text))


def _shown_sequence(value: Any, items: int) -> str:
    texts = (shown(item, items) for item in value)
    if names := getattr(value, "_fields", None):  # of a namedtuple
        return f"{type(value).__name__}({', '.join(f'{name}={text}' for name, text in zip(names, texts))})"
    listed = _listed(texts, len(value), items)
    return f"[{listed}]" if isinstance(value, list) else f"({listed}{',' * (len(value) == 1)})"


def _listed(texts: Iterable[str], length: int, items: int) -> str:
    first = [text for _, text in zip(range(items), texts)]
    return ", ".join([*first, f"... {length - items} more"] if length > items else first)


def brief(value: Any) -> str:
    """A value as messages show it: by its type where that would be long.

    >>> brief([1, 2]), brief(int), brief("long" * 20)
    ('[1, 2]', 'the class int', 'str')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = shown(value)
    return text if len(text) <= ROOM else type(value).__name__
