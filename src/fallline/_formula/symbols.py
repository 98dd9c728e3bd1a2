"""Symbols: the values of a formula while it is traced, and what they refuse, with the words to write in its place."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from fallline._formula.vocabulary import VOCABULARY, no_word
from fallline.errors import FormulaError

__all__ = ["COMPARISONS", "OF_NUMPY", "Arrival", "Symbol", "build", "one_number", "per_coordinate"]

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
OF_NUMPY: dict[str, Callable[..., Any]] = {}
"""What stands for functions of NumPy, by their names; `words`, which are built of symbols, are entered there."""


class Symbol:
    """A value of a formula while it is traced: an operation and its operands.

    `array` tells values per coordinate from scalars (functions of hyper-parameters and t alone),
    `truth` tells the results of comparisons from numbers.
    """

    __slots__ = ("args", "array", "op", "truth")
    def __init__(self, op: str, args: tuple[Any, ...], *, array: bool, truth: bool = False) -> None:
        self.op, self.args, self.array, self.truth = op, args, array, truth

    def __repr__(self) -> str:
        name = self.args[0] if self.op in ("input", "hyper") else self.op
        return f"<{'array' if self.array else 'scalar'} {name}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec) if not spec else self._no_numbers("a format")

    def __hash__(self) -> int:
        raise FormulaError("A formula's values cannot be looked up in a dict, a set or a cache: for a table by step "
                           "use a schedule, for a choice where(condition, a, b).")

    def _no_numbers(self, what: str) -> NoReturn:
        raise FormulaError(f"While a formula is traced, its values have no numbers yet, so {what} cannot use them. To "
                           "see numbers, call the function itself with arrays: my_rule.formula(g, ..., lr=0.1).")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._no_numbers("an array")

    @classmethod
    def __torch_function__(cls, func: Callable, *_: Any) -> NoReturn:
        raise no_word(func.__name__, f"torch's {func.__name__}")

    def __setitem__(self, *_: Any) -> NoReturn:
        raise FormulaError("A formula cannot change a value in place: write m = beta*m + g for m[:] = beta*m + g, "
                           "and m = where(condition, a, m) for m[condition] = a.")

    __delitem__ = __setitem__

    def __neg__(self) -> Symbol:
        return build("neg", self)

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return build("abs", self)

    def __invert__(self) -> NoReturn:
        raise FormulaError(f"`~` is not in the vocabulary of formulas: {VOCABULARY}. Reverse the comparison.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Symbol:
        name = ufunc.__name__
        if method != "__call__" or name not in OF_NUMPY:
            word = name if method == "__call__" else f"{name}.{method}"
            raise no_word(word, f"np.{word}")
        if kwargs:
            raise FormulaError(f"np.{name} takes no {', '.join(f'{k}=' for k in kwargs)} in a formula, which changes "
                               "nothing in place: write m = ..., and where(condition, a, b) for conditions.")
        return OF_NUMPY[name](*map(_lift, inputs))

    def __array_function__(self, func: Callable, types: Any, args: Any, kwargs: Any) -> Symbol:
        if func is np.where and len(args) == 3 and not kwargs:
            return OF_NUMPY["where"](*args)
        raise no_word("axis" if kwargs.get("axis") is not None else func.__name__,
                      f"{func.__module__.replace('numpy', 'np')}.{func.__name__}")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise no_word(name, f".{name} of an array")

    def __bool__(self) -> NoReturn:
        raise FormulaError("A formula has no Python `if`, `and`, `or`, `not`, `max` or `min` on its values: "
                           "write where(condition, a, b), maximum(a, b) or minimum(a, b) of fallline.")

    def __float__(self) -> NoReturn:
        raise FormulaError("math.* and float() take plain numbers, not the values of a formula: "
                           "write fallline's sqrt, abs, sign, maximum, minimum, where, log or exp.")

    __int__ = __index__ = __complex__ = __round__ = __trunc__ = __float__

    def __iter__(self, *_: Any) -> NoReturn:
        raise FormulaError("A formula works coordinate by coordinate: its values have no length, items or indices.")

    __getitem__ = __len__ = __contains__ = __iter__


class Arrival(Symbol):
    """The increment y - x to where the parameter x is to come: x + (y - x) is y, whatever rounding would make of it."""

    __slots__ = ()

    def __init__(self, y: Symbol, x: Symbol) -> None:
        super().__init__("sub", (y, x), array=True)


def _refuse(sign: str) -> Callable[..., NoReturn]:
    def refused(*_: Any) -> NoReturn:
        raise no_word(sign, f"`{sign}`")
    return refused


def per_coordinate(value: Any) -> Symbol:
    """A value that a formula returned, as a symbol of one number per coordinate."""
    symbol = _lift(value)
    if symbol.truth:
        raise FormulaError("A comparison was returned where a number is needed: write where(g > 0, 1, 0).")
    return symbol if symbol.array else Symbol("fill", (symbol,), array=True)


def one_number(value: Any, name: str) -> Symbol:
    """The new value, that a formula returned, of a state slot that is one number."""
    symbol = _lift(value)
    if symbol.array or symbol.truth:
        raise FormulaError(f"{name} is one number, but an array was returned for it: reduce it with total or norm, or "
                           "give the slot a plain start.")
    return symbol


def build(op: str, *operands: Any) -> Symbol:
    """The symbol of one operation; the operands are symbols and numbers.

    A `where` whose condition is a scalar but whose result is not becomes the operation "choose".
    """
    args = tuple(_lift(a) for a in operands)
    for one, other in (args, args[::-1]) if op == "add" else ():
        if isinstance(other, Arrival) and other.args[1] is one:
            return other.args[0]
    array = any(a.array for a in args)
    if op == "power" and array:
        raise FormulaError("A power of an array is not rounded the same on every machine: write g*g for g**2, "
                           "g*g*g for g**3, sqrt(g) for g**0.5. Powers are for scalars (beta1**t).")
    if op in ("log", "exp") and array:
        raise FormulaError(f"{op} of an array is not rounded the same on every machine. It is for scalars "
                           f"({op}(beta1)): functions of hyper-parameters and t.")
    if op == "where" and not args[0].truth:
        raise FormulaError("where(condition, a, b) needs a comparison as its condition, such as g > 0.")
    if any(a.truth for a in (args[1:] if op == "where" else args)):
        raise FormulaError("The result of a comparison is not a number: write where(g > 0, 1, 0).")
    if op == "where" and array and not args[0].array:
        op = "choose"
    return Symbol(op, args, array=array, truth=op in COMPARISONS)


def _lift(a: Any) -> Symbol:
    if isinstance(a, Symbol):
        return a
    if isinstance(a, (int, float, np.integer, np.floating)) and not isinstance(a, builtins.bool):
        # a float, so that no integer grows without bound; a whole exponent stays exact as one
        return Symbol("constant", (float(a),), array=False)
    instead = "; write 1 or 0" if isinstance(a, builtins.bool) else ""
    if hasattr(a, "shape") or isinstance(a, (list, tuple)):
        instead = ("; make it a hyper-parameter (after `*` in the signature), which may be an array shaped like the "
                   "parameter")
    raise FormulaError(f"A formula combines its arguments and plain numbers. Got {type(a).__name__}{instead}.")


def _operators(op: str) -> tuple[Callable, Callable]:
    return (lambda a, b: build(op, a, b)), (lambda a, b: build(op, b, a))


for _op, _dunder in {"add": "add", "sub": "sub", "mul": "mul", "div": "truediv", "power": "pow"}.items():
    _forward, _reflected = _operators(_op)
    setattr(Symbol, f"__{_dunder}__", _forward)
    setattr(Symbol, f"__r{_dunder}__", _reflected)
for _op in COMPARISONS:
    setattr(Symbol, f"__{_op}__", _operators(_op)[0])
for _dunder, _sign in {"and": "&", "or": "|", "xor": "^", "mod": "%", "floordiv": "//", "divmod": "divmod",
                      "matmul": "@"}.items():  # fmt: skip
    setattr(Symbol, f"__{_dunder}__", _refuse(_sign))
    setattr(Symbol, f"__r{_dunder}__", _refuse(_sign))
