"""`plot`: schedules as a picture."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fallline._messages.callables import check_arity, is_function, itself
from fallline._messages.values import brief, shown
from fallline.schedules.base import Schedule, whole
from fallline.schedules.shapes import constant, cosine  # noqa: F401  (the doctest)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["plot"]

POINTS = 2_000  # more than a screen shows
SINGLY = 50  # so few steps are marked one by one
UNKNOWN = 1_000  # steps of a function that does not say how many are worth seeing
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe & Ito 2008
DASHES = ("solid", "dash", "dot", "dashdot")


def plot(schedules: Any, steps: int | None = None) -> Figure:
    """Plot schedules over the number of completed steps as a plotly figure; a notebook shows it, `.show()` opens it.

    Parameters
    ----------
    schedules: a schedule, or any function of the number of completed steps; or a list or dict of these and numbers,
        which are drawn together. The keys of a dict are the legend: `plot({"AdamW": ..., "Muon": ...})`.
    steps: how many steps to show; by default enough to show the whole shape of every schedule.

    Raises ImportError, with the remedy, if plotly is missing; TypeError if something is no schedule or returns no
    number; ValueError if `steps` is no integer ≥ 1.

    >>> figure = plot([constant(0.5), cosine(1.0, steps=100, warmup=10)])
    >>> [(line.name, max(line.y)) for line in figure.data]
    [('constant(value=0.5, warmup=0)', 0.5), ('cosine(peak=1.0, steps=100, warmup=10, end=0.0)', 1.0)]
    """
    functions = _named(schedules)
    if not functions:
        raise ValueError("plot needs a schedule. Got none.")
    if steps is None:
        steps = max(f._extent() if isinstance(f, Schedule) else UNKNOWN for _, f in functions)
    last = _last(steps)
    ts = sorted({k * last // POINTS for k in range(POINTS + 1)})
    figure = _figure(len(functions))
    for (name, function), colour, dash in zip(functions, itertools.cycle(COLOURS), itertools.cycle(DASHES)):
        figure.add_scatter(x=ts, y=[_value(function, t) for t in ts], name=name, line={"color": colour, "dash": dash},
                           mode="lines+markers" if last <= SINGLY else "lines")
    return figure


def _last(steps: Any) -> int:
    try:
        last = whole(steps)
    except TypeError:
        last = 0
    if last < 1:
        hint = ": give several schedules as a list, plot([a, b])" if is_function(steps) else ""
        raise ValueError(f"steps of plot must be a whole number ≥ 1. Got {brief(steps)}{hint}.")
    return last


def _named(schedules: Any, name: str = "") -> list[tuple[str, Callable[[int], float]]]:
    """What to draw, with the names that the legend has for it."""
    if isinstance(schedules, dict):
        parts = [_named(value, f"{name}/{key}" if name else str(key)) for key, value in schedules.items()]
    elif isinstance(schedules, (list, tuple)):
        parts = [_named(value, f"{name}/{k}" if name else "") for k, value in enumerate(schedules)]
    else:
        parts = [[(name or shown(schedules), _function(schedules))]]
    return list(itertools.chain.from_iterable(parts))


def _function(value: Any) -> Callable[[int], float]:
    with contextlib.suppress(TypeError, ValueError):  # for what is no number
        return constant(value)
    if not is_function(value):
        raise TypeError("plot takes a schedule, a function of the number of completed steps, or a list or dict of "
                        f"these, such as opt.lr. Got {brief(value)}{itself(value)}.")
    check_arity(value, "plot takes functions of one argument, the number of completed steps")
    return value


def _value(function: Callable[[int], float], t: int) -> float:
    value = function(t)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"plot takes functions that return numbers. Got {brief(value)} from {shown(function)} at t={t}."
                        ) from None


def _figure(lines: int) -> Figure:
    try:
        from plotly.graph_objects import Figure
    except ImportError:
        raise ImportError('A plot of schedules needs plotly: pip install "fallline[race]"') from None
    legend = {"x": 0, "y": 1.02, "yanchor": "bottom", "orientation": "v"}
    return Figure(layout={
        "template": "plotly_white", "showlegend": True, "legend": legend, "height": 400 + 20 * lines,
        "margin": {"l": 70, "r": 20, "t": 40 + 20 * lines, "b": 50},
        "xaxis": {"title": "completed steps t", "separatethousands": True, "exponentformat": "none"},
        "yaxis": {"title": "value", "rangemode": "tozero", "exponentformat": "e"}})
