"""A race's document in the hands of others: a pandas.DataFrame, a plotly figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fallline.race.report.curves import curves
from fallline.race.report.style import styles_of

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

Document = dict[str, Any]


def of(doc: Document) -> DataFrame:
    """See `Result.to_pandas`."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise ImportError("to_pandas needs pandas: pip install pandas") from None
    return DataFrame([_row(doc, entry) for entry in doc["optimizers"]]).set_index("optimiser")


def _row(doc: Document, entry: Document) -> Document:
    final, untuned, times = entry["final"] or {}, entry["untuned"] or {}, doc["measured"]["microseconds_per_step"]
    figures = final.get("figures", {})
    return {
        "optimiser": entry["name"],
        "rank": entry["rank"][0] if entry["rank"] else np.nan,
        "tuned": entry["tuned"],
        "value": _known(entry["value"]),
        **{name: _loss(final, part) for name, part in (("loss", "median"), ("p10", "p10"), ("p90", "p90"))},
        **{name: _known(figure["median"]) for name, figure in figures.items()},
        "untuned": _loss(untuned, "median"),
        "width_decades": _known(entry["width_decades"]),
        "steps_to_target": _known(final.get("median_steps_to_target")),
        "diverged": final.get("diverged", np.nan),
        "runs": final.get("runs", 0),
        "us_per_step": _known((times or {}).get(entry["name"])),
    }


def _loss(summary: Document, part: str) -> float:
    """Of no run it is not known, and null is infinite."""
    return np.nan if not summary else np.inf if summary[part] is None else summary[part]


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def figure(doc: Document) -> Figure:
    """See `Result.plot`."""
    steps, styles = doc["settings"]["marks"], styles_of(doc)
    made = blank_figure(doc["answer"], "step", "training loss").update_yaxes(type="log", exponentformat="power")
    for curve in curves(doc):
        name, style = curve["name"], styles[curve["name"]]
        band = {"x": [*steps, *reversed(steps)], "y": [*curve["high"], *reversed(curve["low"])], "fill": "toself",
                "line": {"width": 0}, "mode": "lines", "fillcolor": style.light, "opacity": 0.12, "hoverinfo": "skip",
                "legendgroup": name, "showlegend": False}  # fmt: skip
        line = {"color": style.light, "width": 2, "dash": style.dash or "solid"}
        made.add_scatter(**band)
        made.add_scatter(x=steps, y=curve["median"], name=name, legendgroup=name, mode="lines", line=line)
    return made


def blank_figure(title: str, x: str, y: str) -> Figure:
    """A plotly figure with these titles; raises ImportError where plotly is missing."""
    try:
        from plotly.graph_objects import Figure
    except ImportError:
        raise ImportError('plot needs plotly: pip install "fallline[race]"') from None
    return Figure(layout={"template": "plotly_white", "title": {"text": title}, "hovermode": "closest",
                          "xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}})  # fmt: skip
