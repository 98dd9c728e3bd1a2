"""How an optimizer is to run, whatever its rules: the keywords of `Optimizer` that are no hyper-parameters."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from fallline._engines.engine import ENGINES
from fallline._engines.threads import check_threads

__all__ = ["Options"]

NONFINITE = ("raise", "skip", "propagate")


class Options(NamedTuple):
    """The options, with their defaults; `Optimizer` says what they mean."""

    engine: str = "auto"
    nonfinite: str = "raise"
    threads: int | None = None
    state_dir: str | None = None

    def check(self, owner: str) -> None:
        """Raise ValueError, naming the option of `owner`, for what it cannot be."""
        for name, known in (("engine", ENGINES), ("nonfinite", NONFINITE)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} of {owner} must be one of {', '.join(map(repr, known))}. "
                                 f"Got {getattr(self, name)!r}.")
        check_threads(self.threads, f"threads of {owner}")
        if self.state_dir is not None and not (isinstance(self.state_dir, (str, os.PathLike))
                                               and os.path.isdir(self.state_dir)):
            raise ValueError(f"state_dir of {owner} must be a folder that exists. Got {self.state_dir!r}.")

    def given(self) -> dict[str, Any]:
        """The options that are not the default, by name."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}

    def saved(self) -> dict[str, Any]:
        """Of these what a file has: a folder for scratch files is this machine's alone."""
        return {name: value for name, value in self.given().items() if name != "state_dir"}
