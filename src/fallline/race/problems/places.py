"""Where "package.module:name" and "file.py:name" lead, in every process alike."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a name leads: "package.module:name" or "file.py:name", seen from the folder the race was started in.

    Worker processes outlive a race and keep the folder they began in, so a name alone would not do for them.
    """

    source: str
    folder: str


def placed(source: Any) -> Any:
    """`source` with its folder if it is a name that needs one."""
    return Place(source, os.getcwd()) if isinstance(source, str) and ":" in source else source


def thing_at(place: Place, what: str, sought: str, fits: Callable[[Any, ModuleType], bool]) -> Any:
    """The object at a place, given as the argument `what`; an error lists what there is of the sought that fits."""
    module_name, _, name = place.source.rpartition(":")
    _make_importable(place.folder)
    if module_name.endswith(".py"):
        module = _file(os.path.join(place.folder, module_name))
    else:
        module = _module(module_name, what)
    if not hasattr(module, name):
        known = ", ".join(sorted(n for n, thing in vars(module).items() if n[0] != "_" and fits(thing, module)))
        raise ValueError(f"{module_name} has no {name!r}. {sought} there: {known or 'none'}.")
    return getattr(module, name)


def _module(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the module asked for: one that it fails to import is the user's error, and its own message says so.
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ValueError(f"{what} names the module {name!r}, which is not importable from here.") from None
        raise


@lru_cache
def _file(path: str) -> ModuleType:
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path}.")
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name; a module that is there already keeps its place.
    sys.modules.setdefault(name, module)
    _make_importable(str(Path(path).parent))
    spec.loader.exec_module(module)
    return module


def _make_importable(folder: str) -> None:
    """Let `folder` be searched for modules, and leave it so: what a problem imports late is found too."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
