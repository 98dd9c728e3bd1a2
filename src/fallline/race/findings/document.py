"""The race as one plain document: what results.json holds (docs/results-schema.md) and every table and page shows."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import fallline
from fallline._arrays import trees
from fallline._arrays.leaves import host
from fallline.race.contenders.contender import Contender
from fallline.race.contenders.grid import width_in_decades
from fallline.race.contenders.named import written
from fallline.race.findings import wording
from fallline.race.findings.claims import Evidence, judge
from fallline.race.findings.statistics import LEVEL, TEST, Pair, compare, exact, rank, tied_with
from fallline.race.findings.summary import median_steps, spread_of
from fallline.race.problems.surfaces import SURFACES
from fallline.race.protocol.beside import NAME
from fallline.race.protocol.course import Lane, Race
from fallline.race.protocol.runs import SURFACE_STEPS, Outcome, steps_to
from fallline.race.protocol.settings import PROTOCOL

SCHEMA = "fallline.race/1"
PATH_DIGITS = 5  # more than a picture can show

Document = dict[str, Any]


def document(race: Race) -> Document:
    """Everything that has finished, best first. Only the value of "measured" depends on the machine and the day."""
    lanes = _sorted(race)
    losses = {lane.contender.name: _losses(lane.final) for lane in lanes if lane.final}
    pairs = _pairs(race, losses)
    ranks = rank(list(losses), pairs)
    entries = [_entry(race, lane, ranks) for lane in lanes]
    doc: Document = {
        "schema": SCHEMA,
        "protocol_version": PROTOCOL,
        "fallline": fallline.__version__,
        "finished": race.finished,
        "problem": _problem(race),
        "settings": _settings(race),
        "optimizers": entries,
        "beside": _beside(race),
        "test": {"name": TEST, "level": LEVEL, "pairs": [_pair(pair) for pair in pairs]},
        "claims": _claims(race, losses, pairs),
        "surfaces": _surfaces(race, lanes),
    }
    doc["answer"] = wording.answer(doc)
    doc["protocol"] = wording.protocol(doc)
    doc["limits"] = wording.limits(doc)
    doc["measured"] = _measured(race)
    return doc


def asked(race: Race) -> Document:
    """What decides the outcome of every run, of a race that has not begun: its results are those of the same alone."""
    doc = document(race)
    given = {entry["name"]: [entry[key] for key in ("source", "settings", "tuned")] for entry in doc["optimizers"]}
    same = {key: doc[key] for key in ("fallline", "protocol_version", "settings", "problem")}
    return same | {"optimizers": given, "numpy": doc["measured"]["numpy"]}


def _sorted(race: Race) -> list[Lane]:
    """By median final loss; those without, after them, by the median at their best rate so far."""

    def key(lane: Lane) -> tuple[bool, float]:
        tuned = min(lane.medians().values(), default=np.inf)
        return not lane.final, float(np.median(_losses(lane.final))) if lane.final else tuned

    return sorted(race.lanes, key=key)


def _losses(outcomes: Mapping[int, Outcome]) -> np.ndarray:
    """Final losses in the order of seeds; after an interrupt only the leading seeds that have all ended count."""
    leading = [outcomes[i].loss for i in range(len(outcomes)) if all(j in outcomes for j in range(i + 1))]
    return np.array(leading)


def _pairs(race: Race, losses: Mapping[str, np.ndarray]) -> list[Pair]:
    if race.alone:
        return exact({name: float(values[0]) for name, values in losses.items()})
    return compare(losses)


def _entry(race: Race, lane: Lane, ranks: Mapping[str, list[int]]) -> Document:
    contender, medians, rate = lane.contender, lane.medians(), lane.rate()
    name = contender.name
    return {
        "name": name,
        "source": written(contender.source),
        "settings": contender.settings,
        "judged_at": contender.judged_at,
        "tuned": contender.tuned.name,
        "value": None if rate is None else contender.tuned.value(rate),
        "rate": rate,
        "at_edge": lane.grid.edge(medians) != 0,
        "rank": ranks.get(name, []),
        "tied_with": tied_with(name, ranks) if name in ranks else [],
        "final": _final(race, lane.final),
        "untuned": _untuned(lane),
        "width_decades": width_in_decades(medians) if len(medians) > 1 else None,
        "tuning": [
            {
                "rate": rate,
                "value": contender.tuned.value(rate),
                "losses": [_number(lane.tuning[rate][i]) for i in sorted(lane.tuning[rate])],
                "median": _number(median),
            }
            for rate, median in medians.items()
        ],
    }


def _beside(race: Race) -> Document | None:
    """What L-BFGS-B did, as a `final`, with how many gradients and iterations it took; None on a noisy problem."""
    found = _final(race, {i: one.outcome for i, one in race.beside.items()})
    if found is None:
        return None
    runs = [race.beside[i] for i in range(found["runs"])]
    to_target = [run.to_target for run in runs] if race.problem.target is not None else []
    return {
        "name": NAME,
        **found,
        "steps_to_target": to_target,
        "median_steps_to_target": median_steps(to_target),
        "gradients": [run.gradients for run in runs],
        "iterations": [run.iterations for run in runs],
    }


def _final(race: Race, found: Mapping[int, Outcome]) -> Document | None:
    losses = _losses(found)
    if len(losses) == 0:
        return None
    outcomes = [found[i] for i in range(len(losses))]
    marks = race.settings.marks
    target = race.problem.target
    steps = [] if target is None else [steps_to(target, marks, outcome.curve) for outcome in outcomes]
    return {
        **_loss_summary(losses),
        "figures": _figures(outcomes),
        "steps_to_target": steps,
        "median_steps_to_target": median_steps(steps),
        "curves": [[_number(loss) for loss in outcome.curve] for outcome in outcomes],
    }


def _untuned(lane: Lane) -> Document | None:
    losses = _losses(lane.untuned)
    return _loss_summary(losses) | {"value": lane.contender.tuned.default} if len(losses) else None


def _loss_summary(losses: np.ndarray) -> Document:
    spread = spread_of(losses)
    return {
        "median": _number(spread.median),
        "p10": _number(spread.p10),
        "p90": _number(spread.p90),
        "diverged": int(np.isinf(losses).sum()),
        "runs": len(losses),
        "losses": [_number(loss) for loss in losses],
    }


def _figures(outcomes: Sequence[Outcome]) -> Document:
    """Medians and values of what `evaluate` gives besides the loss, over the runs that did not diverge."""
    names = sorted({name for outcome in outcomes for name in outcome.figures})
    values = {name: [o.figures[name] for o in outcomes if name in o.figures] for name in names}
    return {n: {"median": _number(np.median(v)), "values": [_number(x) for x in v]} for n, v in values.items()}


def _pair(pair: Pair) -> Document:
    return {
        "first": pair.first,
        "second": pair.second,
        "p": pair.p,
        "p_adjusted": pair.p_adjusted,
        "clear": pair.clear,
    }


def _problem(race: Race) -> Document:
    problem = race.problem
    return {
        "name": problem.name,
        "source": written(race.source),
        "parameters": sum(host(leaf).size for leaf in trees.flatten(problem.params)[0]),
        "target": problem.target,
        "convex": problem.convex,
        "depends_on_seed": not race.alone,
        "start_loss": _number(problem.loss(trees.copy(problem.params))),
    }


def _settings(race: Race) -> Document:
    settings = race.settings
    return {
        "seed": settings.seed,
        "steps": settings.steps,
        "repeats": len(race.fresh_seeds),
        "tuning_repeats": len(race.tuning_seeds),
        "tuning_seeds": race.tuning_seeds,
        "fresh_seeds": race.fresh_seeds,
        "marks": list(settings.marks),
        "surfaces": list(settings.surfaces),
        "optimizers": [lane.contender.name for lane in race.lanes],
    }


def _claims(race: Race, losses: Mapping[str, np.ndarray], pairs: Sequence[Pair]) -> list[Document]:
    raced = {_as_claimed(lane.contender): lane for lane in race.lanes if lane.contender.name in losses}
    final = {name: losses[lane.contender.name] for name, lane in raced.items()}
    untuned = {name: _losses(lane.untuned) for name, lane in raced.items()}
    evidence = Evidence(
        final,
        {name: values for name, values in untuned.items() if len(values)},
        {name: np.array([lane.final[i].curve for i in range(len(final[name]))]) for name, lane in raced.items()},
        pairs,
        race.problem.convex,
        race.alone,
    )
    return [
        {"claim": c.text, "verdict": c.verdict.value, "because": c.because, "criterion": c.criterion}
        for c in judge(evidence)
    ]


def _as_claimed(contender: Contender) -> str:
    """The name that claims go by: what is said of Adam is not said of Adam with a schedule or betas of one's own."""
    return contender.name if contender.usual else contender.settings


def _surfaces(race: Race, lanes: Sequence[Lane]) -> list[Document]:
    found = []
    for name in race.settings.surfaces:
        surface = SURFACES[name]
        paths = {lane.contender: lane.surfaces[name] for lane in lanes if name in lane.surfaces}
        found.append(
            {
                "name": name,
                "title": surface.title,
                "note": surface.note,
                "start": list(surface.start),
                "window": [list(axis) for axis in surface.window],
                "minima": [list(point) for point in surface.minima],
                "steps": SURFACE_STEPS,
                "target": surface.target,
                "paths": [
                    {
                        "name": contender.name,
                        "value": None if run.rate is None else contender.tuned.value(run.rate),
                        "rate": run.rate,
                        "at_edge": run.at_edge,
                        "loss": _number(run.loss),
                        "steps_to_target": run.steps_to_target,
                        "points": [[_short(c) for c in point] for point in run.path],
                    }
                    for contender, run in paths.items()
                ],
            }
        )
    return found


def _measured(race: Race) -> Document:
    timing = race.timing
    return {
        "seconds": round(race.seconds, 2),
        "jobs": race.settings.jobs,
        "microseconds_per_step": None if timing is None else {n: round(v, 2) for n, v in timing.step.items()},
        "microseconds_per_gradient": None if timing is None else round(timing.gradient, 2),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "arithmetic": _arithmetic(),
    }


def _arithmetic() -> Document:
    """What decides how sums and elementary functions round, as far as anyone can tell."""
    from threadpoolctl import threadpool_info

    blas = sorted({" ".join(str(library[key]) for key in ("internal_api", "version", "architecture") if key in library)
                   for library in threadpool_info() if library["user_api"] == "blas"})  # fmt: skip
    found: Any = np.show_config(mode="dicts")
    return {"NumPy": np.__version__, "machine": platform.machine(), "BLAS": blas,
            "processor": sorted(found["SIMD Extensions"].get("found", []))}


def _number(value: Any) -> float | None:
    """JSON knows no infinity: a diverged run's loss is null."""
    return float(value) if np.isfinite(value) else None


def _short(coordinate: float) -> float | None:
    return float(f"{coordinate:.{PATH_DIGITS}g}") if np.isfinite(coordinate) else None
