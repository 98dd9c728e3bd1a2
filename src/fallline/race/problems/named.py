"""From what a user names, problems and optimisers by name, module or file, to the objects themselves."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import fallline
from fallline.meant import meant_name
from fallline.optimizer import Optimizer
from fallline.race.problems.digits import digits
from fallline.race.problems.problem import Problem
from fallline.race.problems.surfaces import SURFACES, near_start
from fallline.schema import Rule
from fallline.showing import brief

ProblemSource = Any  # a name, a Problem, a function of the seed
OptimizerSource = Any  # a name, "module:rule", a class, an Optimizer, a rule

PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "digits": digits,
    **{name: partial(near_start, name) for name in SURFACES},
}


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


def problem_at(source: ProblemSource, seed: int) -> Problem:
    """The problem that `source` stands for, at one seed.

    Raises
    ------
    ValueError, TypeError
        No such name, module or file, or something else than a Problem came of it.
    """
    source = placed(source)
    made = find_problem(source) if isinstance(source, str | Place) else source
    if isinstance(made, Problem):
        return made
    if not callable(made):
        raise TypeError(f"problem must be a Problem, a function of the seed or a name. Got {brief(made)}.")
    remedy = "" if _is_of_seed(made) else " One of the parameters goes into it: Problem(start, value_and_grad)."
    try:
        problem = made(seed)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if not remedy:
            raise
        raise TypeError(f"problem must be a fallline.race.Problem or a function of the seed that returns one. "
                        f"{_name_of(made)}(seed) raised {type(error).__name__} ({error}).{remedy}") from error
    if not isinstance(problem, Problem):
        raise TypeError(f"{_name_of(made)}(seed) must return a fallline.race.Problem. Got {type(problem).__name__}."
                        f"{remedy}")
    return problem


def _is_of_seed(function: Callable[..., Any]) -> bool:
    """Whether a function says itself that it is one of the seed."""
    try:
        return any("seed" in name for name in inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def find_problem(source: str | Place) -> Problem | Callable[[int], Problem]:
    """The problem of the race by that name, or what "module:name" or "file.py:name" leads to."""
    if isinstance(source, Place):
        return _import(source, "problem")
    if source in PROBLEMS:
        return PROBLEMS[source]
    known = ", ".join(PROBLEMS)
    raise ValueError(f"problem must be one of {known}, or package.module:name, or file.py:name. Got {source!r}.")


def find_optimizer(source: OptimizerSource) -> Optimizer:
    """A fresh optimizer for a name, "module:rule", a class, an Optimizer or a rule."""
    source = placed(source)
    if isinstance(source, Place):
        source = _import(source, "optimizers")
    elif isinstance(source, str):
        source = _by_name(source)
    if isinstance(source, Optimizer):
        return source.fresh()
    if isinstance(source, type) and issubclass(source, Optimizer):
        return source()
    if isinstance(source, Rule):
        return Optimizer(source)
    raise TypeError(f"optimizers must be names, Optimizer classes, Optimizers or rules. Got {source!r}.")


def _by_name(name: str) -> Any:
    known = {class_name.lower(): cls for class_name, cls in fallline.OPTIMIZERS.items()}
    if name.lower() in known:
        return known[name.lower()]
    raise ValueError(f"optimizers must be among {', '.join(fallline.OPTIMIZERS)}, or module:rule. Got {name!r}."
                     f"{meant_name(name, fallline.OPTIMIZERS)}")


def _import(place: Place, what: str) -> Any:
    """The object behind "package.module:name" or "path/file.py:name"."""
    module_name, _, name = place.source.rpartition(":")
    _make_importable(place.folder)
    if module_name.endswith(".py"):
        module = _file(os.path.join(place.folder, module_name))
    else:
        module = _module(module_name, what)
    if not hasattr(module, name):
        sought, fits = _SOUGHT[what]
        known = ", ".join(sorted(n for n, thing in vars(module).items() if n[0] != "_" and fits(thing, module)))
        raise ValueError(f"{module_name} has no {name!r}. {sought} there: {known or 'none'}.")
    return getattr(module, name)


def _is_problem(thing: Any, module: ModuleType) -> bool:
    own = inspect.isfunction(thing) and thing.__module__ == module.__name__
    return isinstance(thing, Problem) or (own and _is_of_seed(thing))


def _is_optimizer(thing: Any, module: ModuleType) -> bool:
    if isinstance(thing, type):
        return issubclass(thing, Optimizer) and thing.__module__ == module.__name__
    return isinstance(thing, Optimizer | Rule)


_SOUGHT = {
    "problem": ("Problems and functions of a seed", _is_problem),
    "optimizers": ("Optimizers and rules", _is_optimizer),
}


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


def _name_of(thing: Any) -> str:
    return getattr(thing, "__qualname__", repr(thing))
