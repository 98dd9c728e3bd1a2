"""docs/optimizers.md and the pages it leads to are what the rules say, to the formula that is read from a page."""

import doctest
import re

import numpy as np
import pytest
from handbook.__main__ import pages
from handbook.drawn import drawn
from handbook.formula import formula
from handbook.notes import cited, noted, notes, sources
from handbook.paths import SURFACE_STEPS, contender
from handbook.picture import placed

import fallline as fl
from fallline._formula.notation.breadth import ROOM, breadth
from fallline._formula.notation.latex import latex
from fallline._formula.notation.layout import typeset
from fallline._formula.notation.lines import lines
from fallline._formula.notation.symbols import symbol as box_of
from fallline._formula.trace import INCREMENT
from fallline.race.problems.surfaces import SURFACES
from latex_reader import compute
from places import DOCS
from support import NAMES, every_optimiser

FORMULAS = [name for name in NAMES if not fl.OPTIMIZERS[name].rule.whole_leaf]
SETTINGS = {"weight_decay": 0.1, "alpha_warmup": 5.0, "beta3_warmup": 7.0, "d0": 1e-2}  # so that all parts matter

THE_TEN = {
    "SGD": r"\Delta\theta &= -\eta\,g",
    "Momentum": r"""v &\leftarrow \mu\,v - \eta\,g \\
\Delta\theta &= v""",
    "Nesterov": r"""v &\leftarrow \mu\,v - \eta\,g \\
\Delta\theta &= \mu\,v - \eta\,g""",
    "AdaGrad": r"""v &\leftarrow v + g^2 \\
\Delta\theta &= -\frac{\eta\,g}{\sqrt{v^+}}""",
    "RMSProp": r"""v &\leftarrow \rho\,v + (1 - \rho)\,g^2 \\
\Delta\theta &= -\frac{\eta\,g}{\sqrt{v^+}}""",
    "AdaDelta": r"""v &\leftarrow \rho\,v + (1 - \rho)\,g^2 \\
\Delta\theta &= -\frac{\sqrt{d}}{\sqrt{v^+}}\,g \\
d &\leftarrow \rho\,d + (1 - \rho)\,(\Delta\theta)^2""",
    "Adam": r"""m &\leftarrow \beta_1\,m + (1 - \beta_1)\,g \\
v &\leftarrow \beta_2\,v + (1 - \beta_2)\,g^2 \\
\Delta\theta &= -\frac{\eta\,\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}\,\frac{m}{\sqrt{v^+}}""",
    "AdaMax": r"""m &\leftarrow \beta_1\,m + (1 - \beta_1)\,g \\
u &\leftarrow \max(\beta_2\,u, \lvert g \rvert) \\
\Delta\theta &= -\frac{\eta}{1 - \beta_1^t}\,\frac{m}{u^+}""",
    "Nadam": r"""m &\leftarrow \beta_1\,m + (1 - \beta_1)\,g \\
v &\leftarrow \beta_2\,v + (1 - \beta_2)\,g^2 \\
\Delta\theta &= -\frac{\eta\,\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}\,\frac{\beta_1\,m + (1 - \beta_1)\,g}{\sqrt{v^+}}""",
    "NadaMax": r"""m &\leftarrow \beta_1\,m + (1 - \beta_1)\,g \\
u &\leftarrow \max(\beta_2\,u, \lvert g \rvert) \\
\Delta\theta &= -\frac{\eta}{1 - \beta_1^t}\,\frac{\beta_1\,m + (1 - \beta_1)\,g}{u^+}""",
}


def symbol(name):
    return latex(box_of(name))


def body(text):
    return text.removeprefix("\\begin{aligned}\n").removesuffix("\n\\end{aligned}")


def page_of(name):
    return (DOCS / "optimizers" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_pages_are_what_the_rules_say():
    written = pages(DOCS)
    assert list(written) == ["optimizers.md", "dialects.md", *(f"optimizers/{name}.md" for name in NAMES)]
    for name, text in written.items():
        assert (DOCS / name).exists(), f"docs/{name} is missing. Write it: python -m handbook"
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is out of date: python -m handbook"
    files = {file.name for file in (DOCS / "optimizers").iterdir()}
    assert files == {f"{name}.{kind}" for name in NAMES for kind in ("md", "svg")}


def test_every_link_to_a_file_leads_to_one():
    for name in ("optimizers.md", "dialects.md", *(f"optimizers/{name}.md" for name in NAMES)):
        links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", (DOCS / name).read_text(encoding="utf-8"))
        assert len(links) >= (1 if name == "dialects.md" else 3)
        assert [link for link in links if not (DOCS / name).parent.joinpath(link).exists()] == [], name


@pytest.mark.needs("a page")
@every_optimiser
def test_the_defaults_on_a_page_are_exact(name):
    hyper = fl.OPTIMIZERS[name].rule.hyper
    said = dict(re.findall(r"^\| `(\w+)` \|(?: \$\S+ \|)? (\S+) \| ", page_of(name), re.MULTILINE))
    assert {h: float(said[h]) for h in hyper} == {h: hyper[h].default for h in hyper}


def test_the_formulas_of_the_ten_look_like_those_of_their_papers():
    for name, expected in THE_TEN.items():
        assert body(latex(typeset(fl.OPTIMIZERS[name].rule))) == expected, name


@pytest.mark.needs("a page")
@pytest.mark.parametrize("name", FORMULAS)
def test_the_formula_on_the_page_read_as_latex_takes_the_steps_of_the_optimiser(name):
    formula, *point = re.findall(r"```math\n(.*?)\n```", page_of(name), re.DOTALL)
    rule = fl.OPTIMIZERS[name].rule
    settings = {h: SETTINGS.get(h, hyper.default) for h, hyper in rule.hyper.items()}
    opt, rng = fl.OPTIMIZERS[name](**settings), np.random.default_rng(3)
    w = rng.standard_normal(6)
    values = {symbol(h): value for h, value in settings.items()}
    for t in range(1, 13):
        g = rng.standard_normal(6) * (rng.random(6) > 0.2)
        if t == 1:
            starts = {"x": w.copy(), "g": g, **settings}
            values |= {symbol(s): starts[v] if isinstance(v, str) else v for s, v in rule.slots.items()}
        values |= {"g": g, "t": float(t), symbol("x"): w.copy()}
        with np.errstate(all="ignore"):
            values = compute(formula, values)
        before = w.copy()
        w = opt.step(w, g)
        np.testing.assert_allclose(before + values[r"\Delta\theta"], w, rtol=1e-11, atol=1e-13)
        for slot in rule.slots:
            np.testing.assert_allclose(values[symbol(slot)], opt.state[slot], rtol=1e-11, atol=1e-300, err_msg=slot)
        for rest in point:
            reported = compute(f"rest &= {rest}", values | {symbol("x"): w})["rest"]
            np.testing.assert_allclose(reported, opt.rest(w), rtol=1e-11)
    assert bool(point) == (rule.rest is not None)


@every_optimiser
def test_no_two_things_of_a_page_have_one_symbol(name):
    rule = fl.OPTIMIZERS[name].rule
    shorthands = [] if rule.whole_leaf else list(lines(rule))
    names = {"g", "x", "t", INCREMENT, *rule.slots, *rule.hyper, *shorthands}
    assert len({symbol(n) for n in names}) == len(names)


def spread(a):
    """Called by scaled and by the rule."""
    return np.ptp(a)


def scaled(a):
    return a / (1 + spread(a))


@fl.rule(whole_leaf=True)
def of_leaves(g, *, lr: fl.NonNegative = 0.1):
    """No formula over coordinates.

    np.spread is not this module's spread.
    """
    return -lr * scaled(g) * np.sign(spread(g))


def test_a_rule_of_whole_leaves_is_shown_as_its_code_and_what_it_calls():
    _, code = formula(of_leaves)
    assert code.removeprefix("```python\n").removesuffix("\n```").split("\n\n\n") == [
        "def spread(a):\n    return np.ptp(a)", "def scaled(a):\n    return a / (1 + spread(a))",
        "@fl.rule(whole_leaf=True)\ndef of_leaves(g, *, lr: fl.NonNegative = 0.1):\n"
        "    return -lr * scaled(g) * np.sign(spread(g))"]  # fmt: skip


@fl.rule
def hard_to_typeset(g, x, a=0, b=1, c=fl.scalar(0.0, over="leaf"), *, lr=0.5, k=3.0):
    """Everything that could go wrong: old state behind new, parentheses, signs, powers, names taken twice, words."""
    old = a
    a = a/2 - (g - (b - x)) - -lr*g
    lr = lr*1e-7 + 2.5
    b = fl.where(g >= 0, -old, fl.where(g == x, 1, b*0.5*-2 + 0*(fl.abs(g) + fl.abs(x) + fl.sqrt(fl.abs(g*x)))))
    c = c - fl.total(-g*a - x)*fl.norm(g - x, "leaf")/(k/lr/2)
    return -(a - old)*(a - old)*k**(1 + lr)/-fl.exp(-k)/k*(g/x)*(g/x) - (c - 2*x)/3, a, b, c


FOUR = 4


def halves(a, *, share=FOUR - 2):
    c = a/share
    return a - c, c


@fl.rule
def hard_to_read(g, a=0, b=1, c=2, *, lr=0.5):
    """Locals that change names with slots, are assigned again, or are called as others are; calls within calls."""
    old, a = a, 2*c
    a = a + g
    b, rest = halves(b - a)
    step, kept = halves(-lr*rest*FOUR)
    return kept*fl.abs(step) + old, b, a, step


@pytest.mark.parametrize("rule", [hard_to_typeset, hard_to_read])
def test_what_is_hard_to_typeset_is_read_back_as_it_was_meant(rule):
    rng = np.random.default_rng(5)
    formula = latex(typeset(rule))
    assert r"a^{\mathrm{old}}" in formula
    opt, w = fl.Optimizer(rule), rng.standard_normal(4)
    values = {symbol(name): value for name, value in {**opt.hyper, **rule.slots}.items()}
    for _ in range(3):
        g, before = rng.standard_normal(4), w.copy()
        values = compute(formula, values | {"g": g, r"\theta": before})
        w = opt.step(w, g)
        np.testing.assert_allclose(before + values[r"\Delta\theta"], w, rtol=1e-11)
        for slot in "abc":
            np.testing.assert_allclose(values[slot], opt.state[slot], rtol=1e-11)


def squared(g):
    return np.square(g)


def branching(g):
    return g if SETTINGS else -g


@pytest.mark.parametrize(("formula", "place"), [(squared, "np.square(g)"), (branching, "g if SETTINGS else -g")])
def test_a_formula_that_has_no_lines_is_an_error_that_names_the_place(formula, place):
    with pytest.raises(ValueError, match=re.escape(f"No page can print `{place}`: ")):
        lines(fl.rule(formula))


@pytest.mark.needs("a page")
@every_optimiser
def test_the_picture_shows_the_path_that_the_optimiser_takes(name):
    paths = drawn(DOCS / "optimizers", name)
    assert list(paths) == list(SURFACES), f"docs/optimizers/{name}.svg lacks some: python -m handbook {name}"
    entered = contender(name)
    for title, path in paths.items():
        surface = SURFACES[title]
        opt, w = entered.optimizer(path.rate), np.array(surface.start, dtype=float)
        if "weight_decay" in opt.hyper:
            opt.weight_decay = 0.0
        matrix = fl.OPTIMIZERS[name].rule.whole_leaf  # which has the point on its diagonal
        w = np.diag(w) if matrix else w
        points = [np.array(surface.start)]
        for _ in range(SURFACE_STEPS):
            g = surface.value_and_grad(w.diagonal() if matrix else w)[1]
            w = opt.step(w, np.diag(g) if matrix else g)
            points.append(opt.rest(w).diagonal() if matrix else opt.rest(w))
        old = f"docs/optimizers/{name}.svg is not its path any more. Draw it: python -m handbook {name}"
        assert len(path.points) == len(points), old
        np.testing.assert_allclose(path.points, placed(surface, points), atol=0.5, err_msg=old)


def test_the_pages_show_what_muon_and_adafactor_do_to_matrices():
    for name, other in (("Muon", "AdamW"), ("Adafactor", "Adam")):
        own, vectors = drawn(DOCS / "optimizers", name), drawn(DOCS / "optimizers", other)
        assert all(own[surface].points != vectors[surface].points for surface in own)
        assert "is the matrix W" in page_of(name)
        assert "This is its code, not a formula." in page_of(name)


@pytest.mark.needs("a page")
@pytest.mark.parametrize("name", FORMULAS)
def test_no_line_of_a_formula_is_too_broad_for_a_phone(name):
    for block in re.findall(r"```math\n(.*?)\n```", page_of(name), re.DOTALL):
        for row in re.split(r"\\\\\n", body(block)):
            cases = re.search(r"(.*)\\begin{cases}(.*)\\end{cases}", row)
            rows = [f"{cases[1]}{part}" for part in cases[2].split(r" \\ ")] if cases else [row]
            assert max(map(breadth, rows)) <= ROOM + 2, row


def test_the_letters_of_a_picture_can_be_read_on_a_phone():
    text = (DOCS / "optimizers" / "Adam.svg").read_text(encoding="utf-8")
    width = int(re.search(r'viewBox="0 0 (\d+) ', text)[1])
    assert min(map(float, re.findall(r"font(?:-size)?: ([\d.]+)px", text))) * 358 / width >= 10


@pytest.mark.needs("a page")
@every_optimiser
def test_a_picture_is_light_and_shows_itself_in_light_and_dark(name):
    file = DOCS / "optimizers" / f"{name}.svg"
    text = file.read_text(encoding="utf-8")
    assert len(text) < 60_000
    assert "prefers-color-scheme: dark" in text


@pytest.mark.needs("a page")
@every_optimiser
def test_the_examples_of_a_page_run(name):
    example = doctest.DocTestParser().get_doctest(page_of(name).replace("\n```", "\n\n"), {}, name, None, 0)
    assert len(example.examples) >= 6
    results = doctest.DocTestRunner(verbose=False).run(example)
    assert results.failed == 0


def test_an_optimiser_without_notes_or_picture_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Newest has no notes on use and avoid. Write \[Newest\] .* into handbook"):
        notes("Newest")
    with pytest.raises(FileNotFoundError, match="Draw it: python -m handbook Newest"):
        drawn(tmp_path, "Newest")
    with pytest.raises(ValueError, match=r"nobody2020 is no source. Write it into \[sources\]"):
        cited("as {nobody2020} shows")
    monkeypatch.setattr("handbook.notes._read", lambda: {"Newest": {"use": "Always."}})
    with pytest.raises(ValueError, match=r"Newest has no notes on avoid. Write \[Newest\]"):
        notes("Newest")


def test_every_source_is_cited():
    texts = [text for name in noted() for text in notes(name)]
    assert {s for text in texts for s in cited(text)} == set(sources().values())
