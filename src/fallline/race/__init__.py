"""The race: which optimiser, at which rate, for this problem.

>>> import numpy as np
>>> import fallline as fl
>>> bowl = fl.race.Problem(np.array([3.0, 1.0]), lambda x: (float(x @ x), 2 * x), name="bowl")
>>> result = fl.race.run(bowl, optimizers=["SGD", fl.Adam], steps=50, jobs=1, surfaces=())
>>> result.answer
'Best here: SGD at lr 0.3.'
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence

from fallline.race.contenders.named import OptimizerSource
from fallline.race.findings.agreement import Agreement, agreement
from fallline.race.findings.document import asked, document
from fallline.race.problems.named import ProblemSource
from fallline.race.problems.problem import Problem
from fallline.race.problems.surfaces import SURFACES, Surface
from fallline.race.protocol.again import again
from fallline.race.protocol.course import Race
from fallline.race.protocol.kept import Kept, taken_up
from fallline.race.protocol.progress import Progress
from fallline.race.protocol.settings import REPEATS, STEPS, Settings
from fallline.race.report.profile import Profile, profile_of
from fallline.race.report.result import Result, load
from fallline.race.report.tracks import Tracks, tracks

__all__ = [
    "Interrupted", "Problem", "Profile", "Result", "Surface", "Tracks", "check", "load", "profile",
    "run", "tracks",
]  # fmt: skip


# Imported where they are used, so that this module can be looked at without the extra.
_EXTRA = {"joblib": "joblib", "rich": "rich", "jinja2": "jinja2", "sklearn": "scikit-learn",
          "threadpoolctl": "threadpoolctl"}  # fmt: skip


class Interrupted(KeyboardInterrupt):
    """The race was interrupted; `result` holds what had finished."""

    def __init__(self, result: Result) -> None:
        super().__init__("the race was interrupted")
        self.result = result


def run(
    problem: ProblemSource = "digits",
    optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None = None,
    *,
    steps: int = STEPS,
    repeats: int = REPEATS,
    seed: int = 0,
    jobs: int = -1,
    surfaces: Sequence[str] = tuple(SURFACES),
    resume: str | os.PathLike[str] | None = None,
) -> Result:
    """Tune each optimiser on `problem`, run it on fresh seeds, and say which differences are clear.

    Parameters
    ----------
    problem: a `Problem`, a function of the seed that returns one, the name of one of the race's own (digits,
        rosenbrock, beale, saddle, bowl, himmelblau), "package.module:name" or "file.py:name".
    optimizers: names, Optimizer classes, Optimizers (chains, partitions), rules or "module:rule"; a dict of
        these by the names that the report should have; None for the ten. Of other libraries: a class of torch.optim, an
        optax transformation or a function of the rate that makes one, a function (params, grads) -> params with its
        rate as a keyword, or a function of the rate that makes one; their settings come by functools.partial.
        What is tuned is `lr`; where there is none, the first hyper-parameter that is no fraction. A number is
        replaced; of schedules, of settings by leaf, path or coordinate and of the rates of several parts a common
        factor is tuned, so that their shape and zeros stay: "lr × 3".
    steps: how many steps each run takes.
    repeats: how many fresh seeds are reported; tuning takes 3 of its own.
    seed: determines every run; results are the same bits for the same seed whatever `jobs`.
    jobs: processes; -1 for one per processor. `joblib.parallel_config` chooses another back end.
    surfaces: which of the pictures of two variables to draw; () for none.
    resume: a folder, or a file that ends with .jsonl: every run that ends is added to it, and runs that it has already
        are not run again. So a race that was killed goes on, to the same results.

    Raises
    ------
    ImportError: the extra `race` is not installed.
    ValueError, TypeError: an argument is not as described, settings do not fit the problem's parameters, or the
        gradient does not match finite differences; `resume` is of another race, fallline or NumPy.
    Interrupted: a KeyboardInterrupt came; its `result` holds what had finished.
    """
    check_installed()
    race = Race(problem, optimizers, Settings(steps, repeats, seed, jobs, tuple(surfaces)))
    return finish(race, None if resume is None else taken_up(resume, asked(race)))


def check(
    path: str | os.PathLike[str],
    problem: ProblemSource | None = None,
    optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None = None,
    *,
    jobs: int = -1,
) -> Agreement:
    """Run the race of a results.json again, and say what of it agrees: `print` it, or ask `.agrees`.

    Where NumPy, BLAS and processor are those of the file all of it must have the same bytes, whatever `jobs`; else
    losses must agree to a tolerance that it states.

    Parameters
    ----------
    path: the file, or the folder that has it.
    problem, optimizers: as they were given to `run`; None takes what the file names. Those given as objects have to be
        given again.

    Raises
    ------
    FileNotFoundError, ValueError: there is no such file, it is of another protocol or of an interrupted race, or the
        problem or optimizers are not the file's.
    Interrupted: a KeyboardInterrupt came.
    """
    check_installed()
    kept = load(path).document
    race = again(kept, problem, optimizers, jobs)
    return agreement(kept, finish(race).document)


def profile(results: Sequence[Result]) -> Profile:
    """How often each optimiser is within a factor of the fastest, over races on several problems; `print` shows it.

    A performance profile (Dolan & Moré 2002, doi:10.1007/s101070100263) of steps to each problem's target, where every
    fresh seed counts as a run.

    Raises ValueError for races without targets, or of different optimizers.

    >>> import fallline as fl
    >>> races = [fl.race.run(name, ["SGD", "Adam"], steps=99, jobs=1, surfaces=()) for name in ("bowl", "saddle")]
    >>> fl.race.profile(races).problems
    ('bowl', 'saddle')
    """
    return profile_of([result.document for result in results])


def check_installed(*more: str) -> None:
    """Raise an ImportError with the remedy if a package of the extra `race`, or one of `more`, is missing."""
    missing = [_EXTRA.get(name, name) for name in (*_EXTRA, *more) if not _is_there(name)]
    if missing:
        raise ImportError(f'The race needs {", ".join(missing)}: pip install "fallline[race]"')


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it stands in sys.modules as None, which is how a module is hidden
        return False


def finish(race: Race, kept: Kept | None = None) -> Result:
    """Run a prepared race, but for what is kept of it; raises Interrupted with what had finished."""
    try:
        with Progress() as progress:
            race.go(progress, kept or Kept())
    except KeyboardInterrupt:
        raise Interrupted(_result(race)) from None
    return _result(race)


def _result(race: Race) -> Result:
    return Result(document(race), {lane.contender.name: lane.contender.source for lane in race.lanes})
