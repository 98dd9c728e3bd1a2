"""Formulas as code: as one line each where a paper has lines, else as they are written."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fallline._formula.notation.lines import Named, lines, sign_of, tree_of, tried
from fallline._formula.program import INCREMENT

if TYPE_CHECKING:
    from fallline._formula.rule import Rule

__all__ = ["WIDTH", "code", "in_lines"]

WIDTH = 72  # what help() has at 80 columns


def in_lines(rule: Rule) -> str:
    """A rule's formula for a terminal, by the names that it has in the code.

    A function of whole leaves, or of what has no lines, is as it is written; without source there is nothing.
    """
    found = None if rule.whole_leaf else tried(lambda: _lines(rule))
    return str(found or tried(lambda: code(rule.formula)) or "")


def _lines(rule: Rule) -> str:
    wrapped = partial(textwrap.wrap, width=WIDTH, subsequent_indent=" " * 8, break_on_hyphens=False)
    return "\n".join(line for name, value in lines(rule).items()
                     for line in wrapped(f"{_name(name)} {sign_of(rule, name)} {_tight(value)}"))


def _tight(value: ast.expr) -> str:
    """An expression as formulas are written here, with no room around products."""
    return re.sub(r" (\*\*?|/) ", r"\1", ast.unparse(_Names().visit(value)))


class _Names(ast.NodeTransformer):
    def visit_Named(self, node: Named) -> ast.expr:
        return ast.Name(_name(node.name) + "_old" * node.old)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        given = [arg for arg in node.args if not (isinstance(arg, ast.Constant) and arg.value is None)]
        return ast.Call(node.func, [self.visit(arg) for arg in given], [])


def _name(name: str) -> str:
    return "Δθ" if name == INCREMENT else name


def code(formula: Callable[..., Any]) -> str:
    """A function as it is written, without its docstring, and before it what it calls of its own module.

    Raises OSError for one without source.
    """
    written: dict[str, str] = {}
    _write(formula, written)
    return "\n\n\n".join(written.values())


def _write(function: Callable[..., Any], written: dict[str, str]) -> None:
    source, tree = textwrap.dedent(inspect.getsource(function)).splitlines(), tree_of(function)
    called = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    for name in called:
        helper = inspect.unwrap(function).__globals__.get(name)
        if inspect.isfunction(helper) and helper.__module__ == function.__module__ and name not in written:
            _write(helper, written)
    if isinstance(tree, ast.FunctionDef) and ast.get_docstring(tree):
        del source[tree.body[0].lineno - 1 : tree.body[0].end_lineno]
    written[function.__name__] = "\n".join(source)
