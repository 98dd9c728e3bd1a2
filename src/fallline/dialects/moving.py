"""Runs moved between libraries: state given out as they keep it, and taken over from it, leaf by leaf by name.

Only what a formula keeps is moved, and only where the formula is one: `run` says which are. `forms` reads and writes
the form in which state comes.
"""

from __future__ import annotations

from typing import Any

from fallline._optimizer.optimizer import Optimizer
from fallline.dialects.forms import READ, WRITTEN
from fallline.dialects.run import Run

__all__ = ["given", "taken"]


def given(optimizer: Optimizer, library: str) -> dict[str, Any]:
    """An optimizer's state as a library has it: what `Optimizer.state_dict(dialect=...)` gives."""
    run = Run(optimizer, library)
    if library == "optax":
        check_real(run, [dtype for _, dtype in run.leaves().values()])
    return WRITTEN[library](run)


def taken(optimizer: Optimizer, d: Any, library: str) -> dict[str, Any]:
    """A library's state as `Optimizer.load_state_dict` takes it, with the settings that the optimizer has, or those of
    the state if it is of that library."""
    run = Run(optimizer, library)
    found = READ[library](run, d)
    state, leaves = optimizer.state_dict(), run.leaves()
    names = list(leaves) if leaves else list(dict.fromkeys(path for own in found.arrays.values() for path in own))
    shapes = {path: leaves[path] if leaves else run.leaf(found, path) for path in names}
    if library == "optax":
        check_real(run, [dtype for _, dtype in shapes.values()])
    begins = found.t == 0 and not any(found.arrays.values())
    for slot, key in run.called.items() if names and not begins else ():
        its = found.arrays[key] if key else dict.fromkeys(names)
        unknown = [path for path in its if path not in shapes]
        lacking = [path for path in names if path not in its and run.is_there(slot, shapes[path][0])]
        if unknown or lacking:
            raise ValueError(f"The leaves of the state are not those here: "
                             f"{'; '.join(_said('unexpected', unknown) + _said('missing', lacking))}.")
        arrays = {path: run.array(slot, path, shapes[path], its.get(path)) for path in names}
        state["state"][slot] = {path: -array for path, array in arrays.items()} if slot in run.negated else arrays
    if begins:
        return {**optimizer.fresh().state_dict(), "hyper": {**state["hyper"], **found.settings}}
    state["t"] = max(found.counts.values(), default=optimizer.t) if found.t is None else found.t
    state["leaves"] = {path: {"shape": shape, "dtype": dtype, "t": found.counts.get(path, state["t"])}
                       for path, (shape, dtype) in shapes.items()} or None
    state["hyper"].update(found.settings)
    return state


def check_real(run: Run, dtypes: list[str]) -> None:
    """Refuse complex leaves, of which optax has the squares of magnitudes and we those of both parts."""
    if any(dtype.startswith("complex") for dtype in dtypes):
        raise ValueError(f"{run.title} steps real and imaginary parts separately, but optax complex numbers: another "
                         "formula. Move z.real and z.imag separately.")


def _said(word: str, names: list[str]) -> list[str]:
    return [f"{word} {', '.join(map(repr, names[:5]))}{' ...' * (len(names) > 5)}"] if names else []
