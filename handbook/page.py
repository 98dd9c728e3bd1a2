"""The page of an optimiser as Markdown."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

import fallline as fl
from fallline._formula.notation.latex import latex
from fallline._formula.notation.symbols import symbol
from fallline._formula.rule import Rule, summary
from fallline.dialects import every
from fallline.race.findings.wording import number
from fallline.race.problems.surfaces import SURFACES
from handbook.cost import cost
from handbook.drawn import Drawn
from handbook.formula import formula
from handbook.notes import cited, linked, notes
from handbook.paths import SURFACE_STEPS, contender
from handbook.state import defaults, exact, held, memory, rule_of, start

__all__ = ["MADE", "page", "source", "table"]

MADE = "<!-- Written by `python -m handbook` from the rules and from handbook/notes.toml: change those. -->"


def page(name: str, drawn: Drawn) -> str:
    """All of it; raises ValueError, saying what to write where, if there are no notes on this optimiser."""
    rule = rule_of(name)
    said = notes(name)
    sections = [
        [MADE, f"# {name}", summary(rule), _neighbours(name)],
        ["## Formula", *formula(rule)],
        ["## Hyper-parameters", f"`fl.{name}({defaults(rule)})`", _hyper(rule)],
        ["## State", *_state(rule)],
        ["## When to use it", linked(said.use)],
        ["## When not", linked(said.avoid)],
        ["## Its path", *_path(name, drawn)],
        ["## Example", *_example(name, drawn)],
        ["## Notes", *_body(rule)] if _body(rule) else [],
        ["## Sources", f"The formula: {source(rule)}.", _cited(said.use + said.avoid)],
    ]
    return "\n\n".join(part for section in sections for part in section) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def source(rule: Rule) -> str:
    """The paper that a rule's docstring ends with."""
    paragraphs = _paragraphs(rule)
    found = [text for text in paragraphs if text.startswith("Source: ")]
    if not found:
        raise ValueError(f"The docstring of rule {rule.name} names no source. End it with a paragraph `Source: ...`.")
    text = " ".join(found[-1].split()).removeprefix("Source: ").removesuffix(".")
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _paragraphs(rule: Rule) -> list[str]:
    return (rule.__doc__ or "").split("\n\n")


def _body(rule: Rule) -> list[str]:
    return [f"```pycon\n{text.strip()}\n```" if text.startswith(">>>") else " ".join(text.split()).replace("*", r"\*")
            for text in _paragraphs(rule)[1:] if not text.startswith("Source: ")]  # fmt: skip


def _neighbours(name: str) -> str:
    names = list(fl.OPTIMIZERS)
    k = names.index(name)
    before = [f"← [{names[k - 1]}]({names[k - 1]}.md)"] if k else []
    after = [f"[{names[k + 1]}]({names[k + 1]}.md) →"] if k + 1 < len(names) else []
    elsewhere = any(title.rpartition(".")[2].lower() == name.lower() for title in every())
    dialects = [f"[the same name in other libraries](../dialects.md#{name.lower()})"] * elsewhere
    return " · ".join([*before, "[all optimisers](../optimizers.md)", *dialects, *after])


def _hyper(rule: Rule) -> str:
    return table(["name", *_symbol(rule, "symbol"), "default", "must be"], [
        [f"`{h.name}`", *_symbol(rule, f"${latex(symbol(h.name))}$"), "–" if h.default is None else exact(h.default),
         h.range.text] for h in rule.hyper.values()])  # fmt: skip


def _symbol(rule: Rule, cell: str) -> list[str]:
    """A cell of the column of symbols, which only formulas have."""
    return [] if rule.whole_leaf else [cell]


def _state(rule: Rule) -> list[str]:
    rows = [[f"`{slot}`", *_symbol(rule, f"${latex(symbol(slot))}$"), start(rule, slot), held(rule, slot)]
            for slot in rule.slots]  # fmt: skip
    listed = [table(["slot", *_symbol(rule, "symbol"), "starts at", "one for each"], rows)] if rows else ["None."]
    if rule.whole_leaf:
        return [*listed, f"For a matrix, {memory(rule)} bytes for each float32 parameter, plus lower-order terms."]
    moved = cost(rule)
    passes = ", then ".join(_listed(names) for names in moved.passes)
    return [*listed, f"For each float32 parameter, the state takes {memory(rule)} bytes and a step moves {moved.bytes} "
            f"bytes: it reads {passes} and writes {_listed(moved.writes)}. The check of gradients for NaN and infinity "
            "reads $g$ once more, unless a norm has read it already or `nonfinite=\"propagate\"` turns the check off."]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"${latex(symbol(name))}$" for name in names)


def _path(name: str, drawn: Drawn) -> list[str]:
    entered = contender(name)
    rows = [[SURFACES[surface].title, "–" if path.rate is None else number(entered.tuned.value(path.rate)),
             f"not within {SURFACE_STEPS}" if path.steps is None else path.steps,
             number(SURFACES[surface].target)] for surface, path in drawn.items()]  # fmt: skip
    tuned, rule = entered.tuned.name, rule_of(name)
    decays = "weight_decay" in rule.hyper and rule.hyper["weight_decay"].default
    seen = "; ".join(f"{row[0]}: {tuned} {row[1]}, {row[2]} steps to the target" for row in rows)
    return [
        f"![{SURFACE_STEPS} steps of {name} on each surface. {seen}]({name}.svg)",
        f"{SURFACE_STEPS} steps on each surface, from the same start for every optimiser. `{tuned}` is the best of the "
        "race's grid on that surface (the lowest mean logarithm of the value along the path); all else is at its "
        f"default{', but weight decay is 0, as it would pull to the origin' if decays else ''}. "
        "Nothing is random. Two coordinates without noise show how it moves, not how well it trains."
        f"{' The picture shows the point to report, `opt.rest(params)`.' if rule.rest else ''}",
        *([linked(notes(name).path)] if notes(name).path else []),
        table(["surface", f"`{tuned}`", "steps to the target", "target"], rows),
    ]  # fmt: skip


def _example(name: str, drawn: Drawn) -> list[str]:
    rule, tuned, rate = rule_of(name), contender(name).tuned, drawn["bowl"].rate
    value = tuned.default if rate is None else tuned.value(rate)
    if rule.whole_leaf:
        return _example_of_matrices(name, value)
    report = "" if rule.rest is None else "w = opt.rest(w)\n"
    code = (f"import numpy as np\nimport fallline as fl\nopt = fl.{name}({tuned.name}={value!r})\n"
            "w = np.array([-2.5, 1.5])\n"
            f"for _ in range(100):\n    g = (w - [1, 0.5]) * [1, 50]\n    w = opt.step(w, g)\n{report}"
            "print(w.round(3) + 0)\nopt.t, list(opt.state)\n")  # fmt: skip
    end = ", with `opt.rest` at the end" * bool(report)
    return [f"A hundred steps down the elongated bowl, (x − 1)²/2 + 25 (y − ½)²{end}:",
            f"```pycon\n{_session(code)}```"]  # fmt: skip


def _example_of_matrices(name: str, lr: float) -> list[str]:
    """Of a function of whole leaves, which has something else to do for a matrix than for a vector."""
    decay = ", weight_decay=0.0" * ("weight_decay" in rule_of(name).hyper)
    code = ("import numpy as np\nimport fallline as fl\nrng = np.random.default_rng(0)\n"
            "A, B = rng.standard_normal((20, 4)), rng.standard_normal((20, 3))\n"
            f"opt = fl.{name}(lr=fl.schedules.cosine({lr!r}, 100){decay})\n"
            "W = np.zeros((4, 3))\nfor _ in range(100):\n    G = A.T @ (A @ W - B)\n    W = opt.step(W, G)\n"
            "print(abs(W - np.linalg.lstsq(A, B, rcond=None)[0]).max().round(3))\n"
            "[(slot, opt.state[slot].shape) for slot in opt.state]\n")  # fmt: skip
    return ["A hundred steps of least squares for a matrix W, the largest error after them, and the state:",
            f"```pycon\n{_session(code)}```"]  # fmt: skip


def _session(code: str) -> str:
    """Statements as they look in Python's shell, with what they print."""
    names: dict[str, Any] = {}
    text = ""
    for node in ast.parse(code).body:
        lines = (ast.get_source_segment(code, node) or "").splitlines()
        text += "".join(f"{'... ' if k else '>>> '}{line}\n" for k, line in enumerate(lines))
        if isinstance(node, ast.Expr):
            printed: list[str] = []
            names["print"] = lambda value, into=printed: into.append(str(value))
            value = eval("\n".join(lines), names)
            text += "".join(f"{line}\n" for line in [*printed, *([] if value is None else [repr(value)])])
        else:
            exec("\n".join(lines), names)
    return text


def _cited(text: str) -> str:
    return "\n".join(f"- {s.short}, [{s.title}]({s.url})" for s in cited(text))
