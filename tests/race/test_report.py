"""The report: what it is made of, and what a real browser makes of it."""

import json
import re
from itertools import combinations

import numpy as np
import pytest

import fallline as fl
from fallline.race import run
from fallline.race.contenders.contender import TEN
from fallline.race.findings import wording
from fallline.race.report import html as report
from fallline.race.report import rows
from fallline.race.report.style import PAGE, SHADES, STYLES, styles_for
from needed import need, need_chromium

pytestmark = pytest.mark.slow

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def result():
    return run("himmelblau", jobs=2, steps=30, repeats=6, surfaces=("saddle", "bowl"))


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("race"))


def test_the_saved_document_makes_the_same_page_again(saved, tmp_path):
    assert fl.race.load(saved.parent).save(tmp_path / "again.html").read_text() == saved.read_text()


def test_the_page_has_the_formula_of_every_optimiser_and_runs_no_file_for_it(saved, tmp_path):
    page = saved.read_text()
    assert page.count('<tr class="formula"') == page.count('class="open"') == len(TEN)
    assert page.count("<math") >= len(TEN)
    document = json.loads((saved.parent / "results.json").read_text())
    document["optimizers"][0]["source"] = "no_such_file.py:rule"
    (tmp_path / "results.json").write_text(json.dumps(document))
    again = fl.race.load(tmp_path).save(tmp_path / "again.html").read_text()
    assert again.count('<tr class="formula"') == len(TEN) - 1


def test_the_page_asks_nothing_of_any_other_host(saved):
    page = saved.read_text()
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", outside)
    assert not re.findall(r"url\((?!#)", outside)
    assert "default-src 'none'" in page


def test_names_and_text_are_escaped_wherever_they_stand(tmp_path):
    evil = "</script><script>alert(1)</script>"
    problem = fl.race.Problem(1.0, lambda x: (x * x, 2 * x), name=evil)
    page = run(problem, {evil: fl.SGD}, steps=5, jobs=1, surfaces=()).save(tmp_path).read_text()
    assert evil not in page
    assert "alert(1)" in page


def test_the_ten_are_told_apart_by_colour_and_by_marker():
    for part in ("light", "dark", "marker", "outline"):
        assert len({getattr(style, part) for style in STYLES}) == 10, part


def light_of(colour):
    levels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def contrast(*colours):
    dark, light = sorted(float(light_of(colour) @ (0.2126, 0.7152, 0.0722)) for colour in colours)
    return (light + 0.05) / (dark + 0.05)


def test_every_line_has_a_contrast_of_at_least_3_to_whatever_lies_under_it():
    css = report._environment().loader.get_source(report._environment(), "report.css")[0]
    for mode, page in zip(("light", "dark"), PAGE):
        assert f"--page: {page};" in css
        for ground in (page, *getattr(SHADES, mode)):
            assert min(contrast(getattr(style, mode), ground) for style in STYLES) >= 3, (mode, ground)
    assert min(contrast(style.light, "#ffffff") for style in STYLES) >= 3, "on paper"


# Machado, Oliveira and Fernandes 2009, of all severity: protanopia, deuteranopia, tritanopia; and eyes without any.
EYES = np.array([
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    np.eye(3),
])  # fmt: skip
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def seen(colour, eyes):
    """A colour in CIELAB."""
    t = XYZ @ np.clip(eyes @ light_of(colour), 0, 1) / (0.95047, 1, 1.08883)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_any_two_colours_are_apart_to_every_kind_of_eyes():
    for mode in ("light", "dark"):
        for eyes in EYES:
            places = [seen(getattr(style, mode), eyes) for style in STYLES]
            assert min(np.linalg.norm(a - b) for a, b in combinations(places, 2)) > 21, mode


def test_the_page_is_small_and_says_who_is_never_in_the_picture(result, saved):
    assert saved.stat().st_size < 1_500_000
    surface = result.document["surfaces"][0]
    far = surface | {"paths": [{"name": "Far", "points": [[0, 0], [9, 9], [None, None]]}, *surface["paths"]]}
    assert wording.out_of_sight(far) == "Never in the picture after the start: Far."
    assert wording.out_of_sight(surface) == ""
    gone = [path | {"points": [[0, 0], [9, 9]]} for path in surface["paths"][:1]]
    page = report.page(result.document | {"surfaces": [surface | {"paths": gone}]}, {})
    assert f"Never in the picture after the start: {gone[0]['name']}." in page


def test_the_ten_look_the_same_in_every_report_and_others_take_what_is_left():
    ten = styles_for(TEN)
    some = styles_for(["mine", "Adam", "SGD", "yours"])
    assert (some["Adam"], some["SGD"]) == (ten["Adam"], ten["SGD"])
    assert len(set(some.values())) == 4
    assert len(set(styles_for([*TEN, "mine"]).values())) == 10


def test_the_table_has_every_column_that_the_protocol_promises(result):
    headings = {column.heading for column in rows.columns(result.document)}
    assert headings == {
        "rank", "optimiser", "tuned", "loss", "10–90 %", "untuned", "width", "to target", "diverged", "µs/step",
    }  # fmt: skip
    document = result.document | {"problem": result.document["problem"] | {"target": None}}
    assert "to target" not in {column.heading for column in rows.columns(document)}


class Visit:
    """The report in a browser, with every request and every console error it gives rise to."""

    def __init__(self, browser, path, width):
        self.width = width
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
        self.outside, self.errors = [], []
        self.page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else self.outside.append(r.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(path.as_uri())

    @property
    def step(self):
        return int(self.page.locator("#surfaces").get_attribute("data-step"))

    def trails(self):
        return self.page.eval_on_selector_all("path.trail", "paths => paths.map(path => path.getAttribute('d'))")

    def fits(self):
        """Whether the charts have been drawn for the page's width."""
        drawn = "document.querySelector('#curves-chart svg').clientWidth"
        room = "document.querySelector('#curves-chart').clientWidth"
        return abs(self.page.evaluate(drawn) - self.page.evaluate(room)) <= 1

    def until(self, condition):
        """Wait in Python: the page's own policy forbids the evaluation that a wait inside it would need."""
        for _ in range(500):
            if condition():
                return
            self.page.wait_for_timeout(20)
        pytest.fail("waited in vain")


@pytest.fixture(scope="module")
def browser():
    chromium = need_chromium()
    with need("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visits(browser, saved):
    return [Visit(browser, saved, width) for width in (1200, 390)]


def test_in_a_browser_nothing_is_requested_from_outside_and_no_console_error_appears(visits):
    for visit in visits:
        for scheme in ("dark", "light"):
            visit.page.emulate_media(color_scheme=scheme)
            assert visit.page.locator("#curves-chart .line").count() == 11
            assert visit.page.locator("#rates-chart .line").count() == 10
            assert visit.page.locator("path.trail").count() == 20
        assert (visit.outside, visit.errors) == ([], []), visit.width


def test_in_a_browser_the_charts_take_the_colours_of_a_dark_page_and_of_a_light_one(visits):
    page = visits[0].page
    fills = "all => all.map(head => head.getAttribute('fill'))"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        wanted = {getattr(style, scheme) for style in STYLES}
        visits[0].until(lambda wanted=wanted: set(page.eval_on_selector_all("path.head", fills)) == wanted)


def test_in_a_browser_the_page_never_overflows_and_buttons_are_large_enough_to_touch(visits):
    for visit in visits:
        for width in (768, 320, visit.width):
            visit.page.set_viewport_size({"width": width, "height": 900})
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
            visit.until(visit.fits)
        heights = visit.page.eval_on_selector_all("button", "all => all.map(b => b.getBoundingClientRect().height)")
        assert min(heights) >= 44


def test_in_a_browser_end_labels_stay_within_their_charts_and_name_each_optimiser_once(visits):
    for visit in visits:
        for chart, names in (("#curves-chart", [*TEN, "L-BFGS-B"]), ("#rates-chart", TEN)):
            assert sorted(visit.page.locator(f"{chart} .name").all_text_contents()) == sorted(names)
        beyond = visit.page.evaluate(
            "[...document.querySelectorAll('.chart text, .surface > svg text')].filter(t => "
            "t.getBoundingClientRect().right > t.closest('.chart, .surface').getBoundingClientRect().right)"
            ".map(t => t.textContent)"
        )
        assert beyond == []


def test_in_a_browser_the_labels_of_many_optimisers_stay_within_their_charts_too(browser, tmp_path):
    path = run("bowl", list(fl.OPTIMIZERS), steps=3, repeats=1, jobs=1, surfaces=()).save(tmp_path)
    page = Visit(browser, path, 390).page
    for chart in ("#curves-chart", "#rates-chart"):
        room = page.locator(chart).bounding_box()
        tops = page.eval_on_selector_all(f"{chart} .name", "all => all.map(t => t.getBoundingClientRect().top)")
        assert len(tops) >= len(fl.OPTIMIZERS)
        top = room["y"] - page.evaluate("scrollY")
        assert top <= min(tops) < max(tops) < top + room["height"]


def test_in_a_browser_play_moves_the_paths_pause_holds_them_and_the_slider_sets_them(visits):
    visit = visits[0]
    page = visit.page
    last = int(page.locator("#step").get_attribute("max"))
    whole = visit.trails()
    assert visit.step == last

    page.locator("#play").click()
    visit.until(lambda: 0 < visit.step < last)
    early, at = visit.trails(), visit.step
    assert page.locator("#play").text_content() == "Pause"
    assert all(len(now) < len(then) for now, then in zip(early, whole))
    visit.until(lambda: visit.step > at + 5)
    assert all(len(later) > len(now) for later, now in zip(visit.trails(), early))

    page.locator("#play").click()
    held, at = visit.trails(), visit.step
    page.wait_for_timeout(300)
    assert (visit.trails(), visit.step, page.locator("#play").text_content()) == (held, at, "Play")

    page.locator("#step").fill("40")
    assert visit.step == 40
    assert page.locator("#shown").text_content() == f"step 40 of {last}"
    assert all(path.count("L") == 40 for path in visit.trails())


# What of a page lies beyond an A4 page with its margins, and what of its tables is not to be seen.
BEYOND = """[...document.querySelectorAll('body, table, th, td, .chart, .surface, svg, text')].filter(e =>
    e.getBoundingClientRect().right > 182 * 96 / 25.4 + 1 || e.scrollWidth > Math.max(e.clientWidth, 1) + 1 &&
    e.matches('table, th, td')).map(e => e.outerHTML.slice(0, 80))"""
UNSEEN = "[...document.querySelectorAll('table :is(th, td)')].filter(e => !e.getClientRects().length).length"
A4 = {"width": 688, "height": 1017}


def test_in_a_browser_a_printed_page_has_every_column_and_whole_figures_whatever_the_screen(browser, saved, tmp_path):
    figures = {f"a_long_name_of_figure_{k}": 1e-30 for k in range(9)}
    given = [fl.Adam(lambda t: 0.1), fl.Adam(beta1=0.5, beta2=0.5), fl.chain(fl.clip_norm(1.0), fl.AdamW)]
    square = fl.race.Problem([1.0], lambda x: (x[0] ** 2, [2 * x[0]]), target=1e-3,
                             evaluate=lambda x: figures | {"train_loss": x[0] ** 2})  # fmt: skip
    wide = run(square, given, steps=5, repeats=1, jobs=1, surfaces=("bowl",)).save(tmp_path)
    for path, width in ((saved, 1200), (saved, 390), (wide, 1200)):
        visit = Visit(browser, path, width)
        page = visit.page
        page.emulate_media(color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # as a browser does while the page is still a screen's
        for _ in ("a printer", "a preview"):
            assert page.evaluate(BEYOND) == []
            assert page.evaluate(UNSEEN) == 0
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert not page.locator("#key, .controls").first.is_visible()
            page.emulate_media(media="print", color_scheme="dark")
            page.set_viewport_size(A4)
        fills = set(page.eval_on_selector_all("path.head", "all => all.map(head => head.getAttribute('fill'))"))
        assert fills <= {style.light for style in STYLES}
        page.emulate_media(media="screen", color_scheme="light")
        page.set_viewport_size({"width": width, "height": 900})
        visit.until(lambda page=page: page.locator("#key").is_visible())
        visit.until(visit.fits)
        assert page.locator("details[open]").count() == 0
        assert visit.errors == []
        page.close()


def test_in_a_browser_the_key_picks_one_optimiser_out_and_lets_it_go(visits):
    page = visits[1].page
    button = page.locator("#key button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("path.trail.faded").count() == 18
    button.click()
    assert page.locator("path.trail.faded").count() == 0


def test_in_a_browser_long_names_leave_room_for_the_charts_and_stand_whole_in_the_key(browser, tmp_path):
    given = [fl.Adam(lambda t: 0.1), fl.Adam(beta1=0.5, beta2=0.5), fl.chain(fl.clip_norm(1.0), fl.AdamW)]
    result = run("bowl", given, steps=5, repeats=1, jobs=1, surfaces=("bowl",))
    names = [entry["name"] for entry in result.document["optimizers"]]
    assert any("<lambda>" in name for name in names)
    page = Visit(browser, result.save(tmp_path), 390).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert sorted(page.locator("#key button").all_text_contents()) == sorted(names)
    shown = {name if len(name) <= 17 else f"{name[:16]}…" for name in [*names, "L-BFGS-B"]}
    for chart in ("#curves-chart", "#rates-chart"):
        assert page.locator(f"{chart} .room").bounding_box()["width"] > 130
        assert shown >= set(page.locator(f"{chart} .name").all_text_contents()) > set()


def test_in_a_browser_the_rules_run_to_where_they_ran_in_python(browser, tmp_path):
    given = ["SGD", "Nesterov", "AdaDelta", fl.NadamW, fl.Muon, fl.Adam(fl.schedules.constant(0.1)),
             fl.chain(fl.clip_norm(1.0), fl.Adam), fl.chain(fl.SGD, fl.average(0.9)), fl.dialects.torch.Adam]
    result = run("bowl", given, steps=3, repeats=1, jobs=1, surfaces=("rosenbrock", "beale"))
    page = report.page(result.document, result._known)
    assert page.count('"rule": "r') == 2 * 6
    trails = []
    for name, text in (("live", page), ("stored", report.page(result.document, {}))):
        (tmp_path / f"{name}.html").write_text(text)
        visit = Visit(browser, tmp_path / f"{name}.html", 1200)
        trails.append([np.array(re.findall(r"-?[\d.]+", trail), float) for trail in visit.trails()])
        assert visit.errors == []
    assert len(trails[0]) == 2 * 9
    for live, stored in zip(*trails, strict=True):
        np.testing.assert_allclose(live, stored, rtol=1e-4, atol=0.15)  # points are stored with five digits


def test_in_a_browser_a_formula_opens_below_its_row(visits):
    for visit in visits:
        button, row = visit.page.locator("button.open").nth(2), visit.page.locator("tr.formula").nth(2)
        assert not row.is_visible()
        button.click()
        assert row.locator("math").first.is_visible()
        assert button.get_attribute("aria-expanded") == "true"
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= visit.width
        button.click()
        assert not row.is_visible()


def test_in_a_browser_a_chart_is_read_by_pointer_and_by_keys(visits):
    page = visits[0].page
    chart, read = page.locator("#rates-chart"), page.locator("#rates-chart .readout")
    assert chart.get_attribute("role") == "group"
    assert "Arrow keys read values" in chart.get_attribute("aria-label")
    spot = page.locator("#rates-chart .ring").nth(3).bounding_box()
    chart.scroll_into_view_if_needed()
    spot = page.locator("#rates-chart .ring").nth(3).bounding_box()
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
    assert re.fullmatch(r"\w+\n(lr|eps) [\d.e-]+: [\d.e-]+", read.inner_text())
    page.mouse.move(5, 5)
    assert not read.is_visible()
    chart.focus()
    page.keyboard.press("ArrowRight")
    first = read.inner_text()
    page.keyboard.press("ArrowRight")
    second = read.inner_text()
    page.keyboard.press("ArrowDown")
    third = read.inner_text()
    assert first.splitlines()[0] == second.splitlines()[0] != third.splitlines()[0]
    assert first.splitlines()[1].split(":")[0] != second.splitlines()[1].split(":")[0]
    page.keyboard.press("Escape")
    assert not read.is_visible()


def test_in_a_browser_what_goes_on_beyond_the_edge_shows_that_it_does(visits):
    for visit, broad in zip(visits, (False, True)):
        assert visit.page.locator("#results .cue").is_visible() == broad
        scroll = visit.page.locator("#results .scroll")
        assert ("more-right" in scroll.get_attribute("class")) == broad
        scroll.evaluate("all => all.scrollLeft = all.scrollWidth")
        visit.until(lambda scroll=scroll: "more-right" not in scroll.get_attribute("class"))


def test_in_a_browser_every_picture_has_a_name_for_those_who_do_not_see_it(visits):
    named = "all => all.map(svg => svg.getAttribute('aria-label') ?? svg.getAttribute('aria-hidden'))"
    for visit in visits:
        for label in visit.page.eval_on_selector_all("svg, canvas", named):
            assert label


def test_in_a_browser_losses_below_0_are_drawn_on_a_plain_axis(browser, tmp_path):
    dip = fl.race.Problem(np.ones(2), lambda x: (float(x @ x) - 1, 2 * x), name="dip")
    page = Visit(browser, run(dip, ["SGD", "Adam"], steps=20, jobs=1, surfaces=()).save(tmp_path), 900).page
    ticks = page.locator("#curves-chart text[text-anchor=end]").all_text_contents()
    assert {"-1", "0", "1"} <= set(ticks)
    ends = page.eval_on_selector_all("#curves-chart .line", "all => all.map(line => line.getAttribute('d'))")
    assert all("NaN" not in end and end.count("L") > 10 for end in ends)
