"""How an optimizer goes into a file, or to another library, and comes back."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from fallline._optimizer.stepping import Stepper
from fallline._state.state_dict import LoadReport

if TYPE_CHECKING:  # files take modules that an import of fallline need not wait for
    from fallline._state.checkpoint import Contents
    from fallline._state.file import Path

__all__ = ["as_dialect", "load", "of_dialect", "save", "take"]


def save(stepper: Stepper, built: dict[str, Any], path: Path, params: Any = None,
         arrays: Mapping[str, Any] | None = None, extra: Any = None) -> None:
    """Save, with how the optimizer is made again, and named arrays and data that JSON takes of the caller's own."""
    from fallline._state.checkpoint import Contents

    def written() -> None:
        state = stepper.record()
        known = stepper.binding or stepper.group_of_part
        if params is not None and known:
            known.leaves(params, "parameter")
        stepper.others.write(stepper, path, Contents(state, built, params, dict(arrays or {}), extra))

    stepper.turn.join(stepper.others.together, written)


def load(stepper: Stepper, path: Path, rename: Callable[[str], str] | None, strict: bool) -> tuple[Any, LoadReport]:
    """Take over the state of a file; its parameters, and what was not in both. See `Stepper.load`."""

    def loaded() -> tuple[Any, LoadReport]:
        contents = stepper.others.read(stepper, path)
        return contents.params, take(stepper, path, contents, rename, strict)

    return stepper.others.together(loaded)


def take(stepper: Stepper, path: Path, contents: Contents, rename: Callable[[str], str] | None = None,
         strict: bool = True) -> LoadReport:
    """Take over the state of a file that was read (`fallline._state.checkpoint.load`); see `Stepper.load`."""
    from fallline._state.file import guarding

    division, params = stepper.division, contents.params

    def taken() -> LoadReport:
        with guarding(path):
            state = division.checked(contents.state, stepper.holders)
        state = state.renamed(rename, stepper.holders)
        divided = None
        if params is not None and rename is None and stepper.binding is None and not contents.by_path:
            with contextlib.nullcontext() if division.asks else guarding(path):  # a function's errors are its own
                divided, _ = division.divide(params)
        with guarding(path):
            if divided is not None:
                stepper.check_division(divided, state)
            return stepper.load(state, strict)

    return stepper.turn.take(taken)


def as_dialect(optimizer: Any, library: str) -> Callable[[], dict[str, Any]]:
    """What gives an optimizer's state as another library has it."""
    return lambda: cast(dict[str, Any], _moving().given(optimizer, library))


def of_dialect(optimizer: Any, d: Any, library: str) -> dict[str, Any]:
    """Another library's state as the state dictionary of an optimizer."""
    return cast(dict[str, Any], _moving().taken(optimizer, d, library))


def _moving() -> Any:
    return importlib.import_module("fallline.dialects.moving")  # above, and for other libraries alone
