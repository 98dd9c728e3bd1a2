"""Formulas where people look, help() and notebooks: of every rule there is, and of one's own that are hard to read."""

from __future__ import annotations

import inspect
import pydoc
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import fallline as fl
from fallline._formula.notation import latex, mathml
from fallline._formula.notation.boxes import Box
from fallline._formula.notation.code import WIDTH, in_lines
from fallline._formula.notation.layout import typeset
from fallline._formula.notation.symbols import symbol
from fallline._formula.rule import Rule
from fallline._formula.trace import INCREMENT
from fallline.dialects import every
from fallline.rules import dialects
from latex_reader import compute

RULES = [rule for module in (fl.rules, dialects) for rule in vars(module).values() if isinstance(rule, Rule)]
FORMULAS = [rule for rule in dict.fromkeys(RULES) if not rule.whole_leaf]
every_formula = pytest.mark.parametrize("rule", FORMULAS, ids=lambda rule: rule.name)


def written(name):
    return latex.latex(symbol(name))


@every_formula
def test_the_latex_of_a_rule_or_modifier_computes_what_its_formula_computes(rule):
    rng = np.random.default_rng(2)
    g, x = rng.standard_normal((2, 5))
    slots = {name: 0.5 + k if name in rule.scopes else 0.1 + rng.random(5) for k, name in enumerate(rule.slots)}
    hyper = {h.name: 0.25 if h.default in (None, 0.0) else h.default for h in rule.hyper.values()}
    given = {"g": g, "d": g, "x": x, "t": 3}
    increment, *new = rule.split(rule.formula(*(given[name] for name in rule.given), *slots.values(), **hyper))
    new = new[0] if new else ()
    values = {written(name): value for name, value in {**slots, **hyper, "x": x, "g": g, INCREMENT: g}.items()}
    with np.errstate(all="ignore"):
        found = compute(latex.latex(typeset(rule)), {**values, "t": 3.0, r"\infty": np.inf})
    np.testing.assert_allclose(found[written("g" if rule.kind == "before" else INCREMENT)], increment, rtol=1e-12)
    for name, value in zip(rule.slots, new):
        np.testing.assert_allclose(found[written(name)], value, rtol=1e-12, err_msg=name)


def boxes(box):
    return {box.kind}.union(*(boxes(part) for part in box.parts if isinstance(part, Box)))


def test_latex_and_mathml_write_the_same_boxes_and_none_that_no_formula_has():
    assert list(latex.WRITTEN) == list(mathml.WRITTEN)
    assert set(latex.WRITTEN) == {"code"}.union(*(boxes(typeset(rule)) for rule in FORMULAS))


@every_formula
def test_the_mathml_of_a_rule_is_well_formed_and_has_the_symbols_of_its_latex_in_order(rule):
    box = typeset(rule)
    root = ElementTree.fromstring(mathml.mathml(box))
    letters = [element.text for element in root.iter() if element.tag in ("mi", "mn")]
    in_latex = re.sub(r"\\(begin|end){\w+}|"
                      r"\\(left|right|displaystyle|frac|sqrt|cdot|quad|text|sum|[lr][vV]ert)(?![a-zA-Z])|"
                      r"\\(leftarrow|[gln]e)\b|if |otherwise", "", latex.latex(box))
    tokens = re.findall(r"\\math\w+{\w+}|\\[a-zA-Z]+|[\d.]+|[a-zA-Z]", in_latex)
    assert len(letters) == len(tokens), (letters, tokens)
    for letter, token in zip(letters, tokens):
        said = re.sub(r"\\math\w+{(\w+)}", r"\1", token).removeprefix("\\")
        assert said == letter or latex.latex(Box("letter", (letter,))) == token


@pytest.mark.parametrize("name", fl.OPTIMIZERS)
def test_help_shows_the_formula_in_80_columns(name):
    cls = fl.OPTIMIZERS[name]
    formula = re.search(r"\nFormula\n-------\n(.*?)\n\nHyper-parameters\n", inspect.getdoc(cls), re.DOTALL)[1]
    assert formula == in_lines(cls.rule)
    text = pydoc.plain(pydoc.render_doc(cls))
    own = text[text.index(" |  Formula") : text.index(" |  Method resolution order")]
    assert cls.rule.whole_leaf or max(map(len, own.splitlines())) <= 80
    assert len(formula.splitlines()) >= 1


def test_help_shows_the_formula_of_adam_as_its_paper_has_it():
    assert in_lines(fl.rules.adam).splitlines() == [
        "m ← beta1*m + (1 - beta1)*g", "v ← beta2*v + (1 - beta2)*g*g",
        "Δθ = -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/root(v, m)"]  # fmt: skip
    assert "def orthogonal(a: np.ndarray" in in_lines(fl.rules.muon)
    assert all(len(line) <= WIDTH for rule in FORMULAS for line in in_lines(rule).splitlines())


def halving(t):
    return 0.5 / (t + 1)


SHOWN = [
    (fl.rules.adam, ["β"], 1), (fl.rules.l2(rate=0.5), ["0.5"], 1), (fl.Adam(0.25), ["0.25"], 1),
    (fl.Adam(halving), ["halving"], 1),
    (fl.Optimizer(fl.rules.sgd, lr={"W": 0.1, "b": 0.2}), ["{'W': 0.1, 'b': 0.2}"], 1),
    (fl.chain(fl.clip_norm(2.5), fl.Adam(), fl.weight_decay(0.75)),
     ["clip_norm", "Adam", "weight_decay", "2.5", "0.75"], 3),
    (fl.accumulate(3, fl.l2(0.5), fl.SGD()), ["accumulate", "l2", "3"], 3),
    (fl.partition({"a": fl.SGD(0.5), "b": fl.chain(fl.l2(), fl.Adam()), "c": None}, halving),
     ["a: SGD", "b: l2", "b: Adam"], 3),
    (fl.chain(fl.clip_value(2.0), fl.mask(halving, fl.Adam())), ["clip_value", "stepped: Adam"], 2),
    (fl.chain(fl.SGD(), fl.bounds(0)), ["bounds", "∞"], 2),
    *((cls.usual(), [], None) for cls in every().values()), *((cls(), [], None) for cls in fl.OPTIMIZERS.values()),
]  # fmt: skip


@pytest.mark.parametrize(("value", "parts", "formulas"), SHOWN, ids=[repr(shown)[:40] for shown, *_ in SHOWN])
def test_a_notebook_shows_formulas_with_their_settings(value, parts, formulas):
    page = ElementTree.fromstring(value._repr_html_())
    text = "".join(page.itertext())
    assert text.startswith(repr(value))
    assert [part for part in parts if part not in text] == []
    blocks = [math for math in page.iter("math") if math.get("display")]
    whole_leaf = value.rule is not None and value.rule.whole_leaf if hasattr(value, "rule") else False
    assert len(blocks) == formulas if formulas else blocks or "def " in text or whole_leaf
    if (tex := value._repr_latex_()) is None:
        assert "def " in text
    else:
        assert tex.startswith("$$")
        assert tex.count(r"\begin{aligned}") == len(blocks)
        assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")


def test_what_stands_in_settings_is_text_and_no_markup():
    opt = fl.SGD({"<b>_#%&$^~\\{": 0.1})
    assert "<b>" not in opt._repr_html_()
    assert r"\texttt{\{'<b>\_\#\%\&\$\(\wedge\)\(\sim\)\(\backslash\)\(\backslash\)\{': 0.1\}}" in opt._repr_latex_()


def three():
    c = 3.0
    return fl.rule(lambda g, *, lr=0.1: -lr * g), fl.rule(lambda g, *, lr=0.1: c * (lr + g)), c


def test_of_several_lambdas_in_a_line_each_is_shown_as_itself():
    first, second, _ = three()
    assert (in_lines(first), in_lines(second)) == ("Δθ = -lr*g", "Δθ = 3.0*(lr + g)")


@fl.rule
def looped(g, m=0, *, lr=0.1):
    """A loop has no line."""
    for _ in range(2):
        m = m + g
    return -lr * m, m


def test_a_formula_without_lines_is_shown_as_its_code_and_one_without_source_by_its_settings():
    assert in_lines(looped).startswith("@fl.rule\ndef looped(")
    assert "for _ in range(2):" in looped._repr_html_()
    assert looped._repr_latex_() is None
    scope = {"fl": fl}
    exec("made = fl.rule(lambda g, *, lr=0.1: -lr*g)", scope)
    opt = fl.Optimizer(scope["made"], lr=0.5)
    assert in_lines(scope["made"]) == ""
    assert opt._repr_html_().count("<math>") == 1
    assert opt._repr_latex_() is None
