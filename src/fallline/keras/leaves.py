"""Keras's variables as the leaves of a tree."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from fallline._formula.chain import distinct

__all__ = ["Leaves"]


class Leaves:
    """Variables by their Keras paths, in their own order: names that Keras gives differ from run to run, and so would
    theirs. A second one of a path has a number behind it."""

    def __init__(self, variables: Sequence[Any] = ()) -> None:
        self.variables = dict(zip(distinct([v.path for v in variables]), variables))
        self._paths = {id(v): path for path, v in self.variables.items()}

    def path(self, variable: Any) -> str:
        """The path of a variable."""
        return self._paths[id(variable)]

    def tree(self, of: Callable[[str, Any], Any]) -> OrderedDict[str, Any]:
        """What a function gives for paths and variables, as a tree whose leaves keep their order."""
        return OrderedDict((path, of(path, v)) for path, v in self.variables.items())
