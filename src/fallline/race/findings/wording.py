"""The sentences of the report, made from the race's document."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fallline.race.contenders.grid import EXTENSIONS, WITHIN
from fallline.race.contenders.tuned import AS_GIVEN, TIMES

Document = dict[str, Any]


def answer(doc: Document) -> str:
    """The finding in one sentence, and how to read it if the race was cut short."""
    ranked = [entry for entry in doc["optimizers"] if entry["final"] and entry["final"]["median"] is not None]
    if not ranked:
        if doc["finished"]:
            return "No optimiser got through: at its best rate each one diverged."
        return "Nothing to compare yet: no optimiser has finished a run on a fresh seed."
    best = ranked[0]
    tied = best["tied_with"]
    sentence = f"Best here: {best['name']}{'' if best['tuned'] == AS_GIVEN else f' at {tuned(best)}'}"
    if len(tied) == len(ranked) - 1 > 0:
        others = "both others" if len(tied) == 2 else f"all {len(tied)} others"
        sentence += f", though tied with {others if len(tied) > 1 else tied[0]}"
    elif tied:
        sentence += f", tied with {listing(tied)}"
    return sentence + "."


def beside(doc: Document) -> str:
    """What a tool for problems without noise did; nothing where there is noise."""
    found = doc["beside"]
    if found is None or found["median"] is None:
        return ""
    gradients = sorted(found["gradients"])[len(found["gradients"]) // 2]
    sentence = (f"There is no noise here: SciPy's {found['name']}, untuned, gets to a median loss of "
                f"{number(found['median'])} with {gradients:,} gradients")
    best = next((entry for entry in doc["optimizers"] if entry["final"]), None)
    if best is None or found["median_steps_to_target"] is None:
        return f"{sentence}."
    own = best["final"]["median_steps_to_target"]
    there = "never is" if own is None else f"takes {own:,.0f}"
    return (f"{sentence}. It is below {number(doc['problem']['target'])} after "
            f"{found['median_steps_to_target']:,.0f}, where {best['name']} {there}.")


def protocol(doc: Document) -> list[str]:
    """How the figures came about, a sentence or two per step."""
    settings, problem, test = doc["settings"], doc["problem"], doc["test"]
    fresh = settings["repeats"]
    noise = problem["depends_on_seed"]
    tuning = "by the full training loss of one run"
    if noise:
        tuning = f"by the median full training loss over {settings['tuning_repeats']} repeats"
    steps = [
        f"Each optimiser takes {settings['steps']:,} steps. Its rate is tuned on a grid from 0.0001 to 3 in half "
        f"decades (AdaDelta has none: its eps, in effect a rate squared, takes the grid squared) {tuning}, never by "
        f"test data. A best value at the grid's edge extends the grid by a decade, up to {_times(EXTENSIONS)}; "
        "if it still stands at the edge, it is marked “at edge”. All else stays as given, by default as in the class.",
        *_factors(doc),
        *_untunable(doc),
        *_points(doc),
    ]
    if noise:
        steps += [
            f"The chosen value runs on {fresh} fresh seed{'s'[: fresh != 1]}, and only these are reported. The start "
            "and the order of mini-batches are the same for all optimisers at the same seed.",
            "Optimisers share a rank, marked “tied”, if their difference over these seeds is not clear: "
            f"{test['name']}, adjusted p < {test['level']}."
            + _power(fresh, len(settings["optimizers"]))
            + " An optimiser that is not "
            "clearly different from two groups stands between them and holds both ranks.",
        ]
    else:
        steps.append(
            "Nothing in this problem depends on a seed, so one run is all there is to know, and any difference ranks."
        )
    return [
        *steps,
        "A run whose value, gradient or parameters cease to be finite has diverged: its loss counts as infinite. "
        "Medians and the 10-90 % range take diverged runs in.",
        "“Untuned” is each as given, by default with its class's defaults, on the same seeds. “Width” is how many "
        f"decades of rates stay within {WITHIN:g} times the best tuning loss, half a decade for each value of the grid "
        "(for AdaDelta, of √eps). "
        f"The loss is taken every {_every(settings['marks'])}, which is how finely “steps to target” can tell.",
        *_beside(doc),
        "Microseconds per step are the optimiser's alone, its gradient given, measured serially after all runs: the "
        "fastest of five rounds.",
    ]


def limits(doc: Document) -> str:
    """What this does not show."""
    problem, settings = doc["problem"], doc["settings"]
    figures = {name for entry in doc["optimizers"] if entry["final"] for name in entry["final"]["figures"]}
    accuracy = " Ranks go by training loss, which test accuracy need not follow." if "test_accuracy" in figures else ""
    return (
        f"What this does not show: how they do on another problem than {problem['name']}, with other than "
        f"{settings['steps']:,} steps, with other schedules, or with the other hyper-parameters tuned as well."
        + accuracy
    )


def _factors(doc: Document) -> list[str]:
    """What was multiplied instead of replaced."""
    scaled = [entry for entry in doc["optimizers"] if entry["tuned"].endswith(TIMES)]
    if not scaled:
        return []
    given = "; ".join(f"{e['name']}: {e['tuned'].removesuffix(TIMES)} of {e['settings']}" for e in scaled)
    return [
        "Where a rate was given as a schedule, by leaf, path or coordinate, several parts have one each, or it is "
        "built into another library's transformation, what is tuned is one factor of them all (of eps, its square), "
        "from 0.01 to 100 in half decades, marked ×: shape and "
        f"zeros stay as given. {given}."
    ]


def _untunable(doc: Document) -> list[str]:
    names = [entry["name"] for entry in doc["optimizers"] if entry["tuned"] == AS_GIVEN]
    return [f"Without a rate to tune, and so run as given: {listing(names)}."] if names else []


def _beside(doc: Document) -> list[str]:
    if doc["beside"] is None:
        return []
    return [f"{doc['beside']['name']} of SciPy runs beside them with its defaults, without any tuning, for at most as "
            "many gradients as the others take steps. It needs gradients without noise, and is not ranked."]


def _points(doc: Document) -> list[str]:
    """Where losses are not those of the parameters that are stepped."""
    by = {at: [e["name"] for e in doc["optimizers"] if e["judged_at"] == at] for at in ("rest", "averaged")}
    said = {"rest": "the point at which the rule rests (opt.rest)", "averaged": "the average it keeps (opt.averaged)"}
    return [
        f"All losses and paths of {listing(names)} are of {said[at]}, which is the one to report; gradients are taken "
        "where it steps, and no step takes an evaluation more for that."
        for at, names in by.items()
        if names
    ]


def tuned(entry: Document) -> str:
    """What was tuned of an optimiser, and the value that was chosen."""
    return AS_GIVEN if entry["tuned"] == AS_GIVEN else f"{entry['tuned']} {number(entry['value'])}"


def not_drawn(doc: Document) -> str:
    """Whose settings do not fit a surface."""
    drawn = {path["name"] for surface in doc["surfaces"] for path in surface["paths"]}
    missing = [name for name in doc["settings"]["optimizers"] if name not in drawn]
    if not missing or not drawn or not doc["finished"]:
        return ""
    return f"Not drawn: {listing(missing)}, whose settings or parts are of leaves that a surface does not have."


def listing(names: Sequence[str]) -> str:
    """
    >>> listing(["Adam", "Nadam", "AdaMax"])
    'Adam, Nadam and AdaMax'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def number(value: float | None, digits: int = 3) -> str:
    """A number to read: few digits, no zeros to count.

    >>> number(0.003), number(1e-08), number(None), number(1234567.0)
    ('0.003', '1e-8', '–', '1.23e6')
    """
    if value is None:
        return "–"
    text = f"{value:.{digits}g}"
    if "e" not in text and 0 < abs(value) < 1e-3:
        text = f"{value:.{digits - 1}e}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def ranks(held: Sequence[int]) -> str:
    """
    >>> ranks([1]), ranks([1, 2, 3]), ranks([1, 3]), ranks([])
    ('1', '1–3', '1, 3', '–')
    """
    if not held:
        return "–"
    if len(held) > 1 and list(held) == list(range(held[0], held[-1] + 1)):
        return f"{held[0]}–{held[-1]}"
    return ", ".join(map(str, held))


def _every(marks: Sequence[int]) -> str:
    gaps = sorted({b - a for a, b in pairwise(marks)})
    if gaps[-1] == 1:
        return "step"
    return f"{gaps[0]} steps" if len(gaps) == 1 else f"{gaps[0]} to {gaps[-1]} steps"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _power(seeds: int, count: int) -> str:
    """A warning where so few seeds cannot make any difference clear."""
    if count < 2 or 2 / 2**seeds < 0.05:
        return ""
    return f" With {seeds} seed{'s'[: seeds != 1]} this test can tell nothing apart; it takes at least 6."


def first_down(surface: Document) -> str:
    """Who was first below a surface's target, and how many get there at all."""
    paths, target = surface["paths"], number(surface["target"])
    arrived = [path for path in paths if path["steps_to_target"] is not None]
    if not arrived:
        return f"None gets below {target} in {surface['steps']} steps."
    first = min(arrived, key=lambda path: path["steps_to_target"])
    return (
        f"First below {target}: {first['name']}, after {first['steps_to_target']} steps. "
        f"{len(arrived)} of {len(paths)} get there."
    )


def out_of_sight(surface: Document) -> str:
    """Whose path is never to be seen in a surface's picture."""
    hidden = [path["name"] for path in surface["paths"] if not any(_inside(p, surface) for p in path["points"][1:])]
    return f"Never in the picture after the start: {listing(hidden)}." if hidden else ""


def _inside(point: Sequence[float | None], surface: Document) -> bool:
    return all(c is not None and low <= c <= high for c, (low, high) in zip(point, surface["window"]))


def surface_rate(surface: Document, name: str) -> str:
    """The tuned value of one optimiser on a surface."""
    path = next((path for path in surface["paths"] if path["name"] == name), None)
    if path is None:
        return "–"
    return "diverged" if path["value"] is None else number(path["value"]) + (" at edge" if path["at_edge"] else "")
