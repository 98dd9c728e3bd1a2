"""What a formula says in words, such as maximum and norm, found again where tracing left only its parts."""

from __future__ import annotations

from typing import Any

from fallline._formula import words as ops
from fallline._formula.symbols import Symbol

__all__ = ["said"]

_A, _B = (Symbol("any", (name,), array=True) for name in "ab")
_ONE = Symbol("any", ("a",), array=False)
_SAME = {"choose": "where"}  # a where whose condition is a scalar

# The words as `ops` writes them, so that nothing here repeats how; what is contained in another word comes behind it.
_WORDS: list[tuple[str, Symbol]] = [
    ("root", ops.root(_A, _B)),
    ("kept", ops.kept(_A, _B)),
    ("bounded", ops.maximum(_A, ops.tiny(_A))),
    ("bounded", ops.maximum(_ONE, ops.tiny(_ONE))),
    ("maximum", ops.maximum(_A, _B)),
    ("minimum", ops.minimum(_A, _B)),
    ("sign", ops.sign(_A)),
    *((f"norm {over}", ops.norm(_A, over)) for over in ops.SCOPES),
    *((f"total {over}", ops.total(_A, over)) for over in ops.SCOPES),
]


def said(symbol: Symbol) -> tuple[str, tuple[Any, ...]]:
    """A symbol as a word and what it is said of: a word of `ops` where it is one, else its operation.

    >>> word, (a, b) = said(ops.maximum(_B, _A))
    >>> word, a is _B, b is _A
    ('maximum', True, True)
    """
    for word, pattern in _WORDS:
        found: dict[str, Symbol] = {}
        if _fits(pattern, symbol, found):
            return word, tuple(found[name] for name in sorted(found))
    return _SAME.get(symbol.op, symbol.op), symbol.args


def _fits(pattern: Any, symbol: Any, found: dict[str, Symbol]) -> bool:
    if not (isinstance(pattern, Symbol) and isinstance(symbol, Symbol)):
        return pattern == symbol
    if pattern.op == "any":
        return same(found.setdefault(pattern.args[0], symbol), symbol)
    return _SAME.get(pattern.op, pattern.op) == _SAME.get(symbol.op, symbol.op) and len(pattern.args) == len(
        symbol.args) and all(_fits(p, a, found) for p, a in zip(pattern.args, symbol.args))


def same(a: Any, b: Any) -> bool:
    """Whether two symbols compute the same."""
    if not (isinstance(a, Symbol) and isinstance(b, Symbol)):
        return bool(a == b)
    return a is b or ((a.op, len(a.args)) == (b.op, len(b.args)) and all(map(same, a.args, b.args)))
