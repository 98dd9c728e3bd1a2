"""A rule's formula as the lines that a paper would print, read from its source.

In the order of the source, each new state is a line, so is the increment, and so is every local name that the formula's
author gave to a value on the way. Words of the vocabulary stay as they are; any other function that is called is read
in its turn, with its arguments put in.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from fallline._formula import words
from fallline._formula.program import INCREMENT

if TYPE_CHECKING:
    from fallline._formula.rule import Rule

__all__ = ["Named", "lines", "rest", "sign_of", "tree_of", "tried"]

ON_PAPER: dict[Any, Callable[..., ast.expr]] = {  # what only rounding makes of these is not printed
    words.settle: lambda d: d,
    words.arrive: lambda y, x: ast.BinOp(y, ast.Sub(), x),
    words.shortened: lambda g, most: ast.BinOp(ast.BinOp(g, ast.Mult(), most), ast.Div(), _word(
        "maximum", _word("norm", g, ast.Constant("tree")), most)),
}
WORDS = {**{getattr(words, name): name for name in words.__all__}, builtins.abs: "abs"}
CHANGED = {"rule": INCREMENT, "before": "g", "after": INCREMENT}
PRINTED = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.operator, ast.unaryop, ast.cmpop)


class Named(ast.expr):
    """What has a symbol; `new` if its value is a line's, `old` if it is state that a line above has changed since."""

    _fields = ("name", "new")
    old = False

    def __init__(self, name: str = "", new: bool = False) -> None:  # without arguments to be copied
        super().__init__()
        self.name, self.new = name, new


def lines(rule: Rule) -> dict[str, ast.expr]:
    """What state slots, INCREMENT (of a modifier of the gradient g) and shorthands of the lines below them take, in the
    order in which it is computed.

    Raises ValueError for what cannot stand in a line, OSError for a function without source.
    """
    names, targets = [*rule.given, *rule.slots, *rule.hyper], [CHANGED[rule.kind], *rule.slots]
    page = _Page({*names, INCREMENT})
    given = {**_named(names), **({"d": Named(INCREMENT)} if rule.kind == "after" else {})}
    for name, value in zip(targets, page.read(rule.formula, given, targets)):
        if not (isinstance(value, Named) and value.name == name):
            page.write(name, value)
    return page.lines


def sign_of(rule: Rule, name: str) -> str:
    """How a line takes its value: what was there before gets an arrow."""
    given = rule.kind != "rule" and name == CHANGED[rule.kind]
    return "←" if name in rule.slots or given else "="


def rest(rule: Rule) -> ast.expr | None:
    """The point to report, where that is not the parameter."""
    if rule.rest is None:
        return None
    names = inspect.signature(rule.rest).parameters
    return _Page({*names}).read(rule.rest, _named(names), [None])[0]


def tree_of(function: Callable[..., Any]) -> ast.FunctionDef | ast.Lambda:
    """A function's syntax tree, whose lines are numbered from the first of its source.

    Raises OSError for a function without source, ValueError for a lambda beside others that could be meant.
    """
    source = inspect.getsource(function)
    kind = ast.Lambda if function.__name__ == "<lambda>" else ast.FunctionDef
    first, *others = (node for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, kind))
    if not others or kind is ast.FunctionDef:
        return first
    margin = len(source) - len(source.lstrip())
    own = [node for node in (first, *others) if _place(node.body, margin) in _places(function)]
    if len(own) != 1:
        raise ValueError("More than one lambda stands on this line.")
    return own[0]


def _place(node: Any, margin: int) -> tuple[int, ...]:
    """From where to where an expression stands, in lines from 1 and bytes."""
    return node.lineno, node.end_lineno, node.col_offset + margin, node.end_col_offset + margin


def _places(function: Any) -> set[tuple[Any, ...]]:
    """From where to where the source of each instruction stands."""
    code = inspect.unwrap(function).__code__
    return {(line and line - code.co_firstlineno + 1, end and end - code.co_firstlineno + 1, *columns)
            for line, end, *columns in code.co_positions()}  # fmt: skip


def tried(read: Callable[[], Any]) -> Any:
    """What is read from a formula; None where there is nothing to read, as one of one's own may be anything."""
    try:
        return read()
    except Exception:
        return None


class _Page:
    """The lines so far, and the names that are `taken`: by arguments, by these lines and by those to come."""

    def __init__(self, taken: set[str]) -> None:
        self.taken, self.lines = taken, dict[str, ast.expr]()

    def write(self, name: str, value: ast.expr) -> None:
        value = deepcopy(value)
        for node in ast.walk(value):
            if isinstance(node, Named):
                node.old = not node.new and node.name in self.lines
        self.lines[name] = value

    def read(self, function: Callable[..., Any], given: Mapping[str, ast.expr],
             targets: Sequence[str | None]) -> list[ast.expr]:
        """The values that a function returns, one for each target; a local that it returns has its target's name.

        A local is no line, but put in where it is used, if it is assigned again or has a name that is taken.
        """
        tree, reading = tree_of(function), _Reading(self, function, given)
        if isinstance(tree, ast.Lambda):
            return reading.values(tree.body, targets)
        statements: list[Any] = tree.body[1:] if ast.get_docstring(tree) else tree.body
        *body, last = statements
        for statement in (*body, last):
            if not isinstance(statement, ast.Return if statement is last else ast.Assign):
                _refuse(statement)
        shown = _shown(last.value, targets)
        assigned = [[part.id for part in _parts(statement.targets[0])] for statement in body]
        for k, statement in enumerate(body):
            later = {*chain(*assigned[k + 1 :])}
            names = [None if local in later else shown.get(local, None if local in self.taken else local)
                     for local in assigned[k]]  # fmt: skip
            self.taken.update(filter(None, names))
            for local, name, value in zip(assigned[k], names, reading.values(statement.value, names)):
                if name is None or isinstance(value, (Named, ast.Constant)):
                    reading.known[local] = value
                else:
                    self.write(name, value)
                    reading.known[local] = Named(name, True)
        return reading.values(last.value, targets)


class _Reading(ast.NodeTransformer):
    """The expressions of a function in one call of it, with what is known of names put in their place."""

    def __init__(self, page: _Page, function: Callable[..., Any], given: Mapping[str, ast.expr]) -> None:
        function = inspect.unwrap(function)
        self.page, self.known = page, dict(given)
        self.around = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}

    def values(self, node: ast.expr, targets: Sequence[str | None]) -> list[ast.expr]:
        """Those of a tuple or of a call, or the one."""
        return self.call(node, targets) if isinstance(node, ast.Call) else [self.visit(part) for part in _parts(node)]

    def call(self, node: ast.Call, targets: Sequence[str | None]) -> list[ast.expr]:
        function = eval(ast.unparse(node.func), self.around)
        if not inspect.isfunction(inspect.unwrap(function)) and function not in WORDS:
            _refuse(node)
        named = {str(word.arg): self.visit(word.value) for word in node.keywords}
        bound = inspect.signature(function).bind(*map(self.visit, node.args), **named)
        bound.apply_defaults()
        given = {name: _tree(value) for name, value in bound.arguments.items()}
        if function in ON_PAPER:
            return [ON_PAPER[function](*given.values())]
        if function in WORDS:
            return [_word(WORDS[function], *given.values())]
        return self.page.read(function, given, targets)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return self.call(node, [None])[0]

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.known[node.id] if node.id in self.known else self.visit_Attribute(node)

    def visit_Attribute(self, node: ast.expr) -> ast.expr:
        value = eval(ast.unparse(node), self.around)
        return _tree(value) if isinstance(value, (int, float)) else _refuse(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        return super().generic_visit(node) if isinstance(node, PRINTED) else _refuse(node)


def _shown(returned: ast.expr, targets: Sequence[str | None]) -> dict[str, str]:
    """The names that locals have on the page: of several targets the one that is called alike, else the last."""
    pairs = [(part.id, name) for part, name in zip(_parts(returned), targets) if isinstance(part, ast.Name) and name]
    return dict(sorted(pairs, key=lambda pair: pair[0] == pair[1]))


def _parts(node: Any) -> list[Any]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _named(names: Iterable[str]) -> dict[str, ast.expr]:
    return {name: Named(name, False) for name in names}


def _tree(value: Any) -> ast.expr:
    return value if isinstance(value, ast.expr) else ast.parse(repr(value), mode="eval").body


def _word(name: str, *args: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name), [*args], [])


def _refuse(node: ast.AST) -> NoReturn:
    raise ValueError(f"No page can print `{ast.unparse(node)}`: a formula on a page is assignments and a return of "
                     "arithmetic, words of fallline.ops, and functions made of these.")
