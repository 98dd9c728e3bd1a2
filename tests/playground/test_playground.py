"""The playground in a real browser: what it shows is what Python computes, and it can be used by whatever there is."""

import contextlib
import io
import re
from urllib.parse import unquote_plus

import numpy as np
import pytest

import fallline as fl
from browser import a_browser, a_page, until
from fallline.cli import main
from fallline.playground.page import chosen
from fallline.race.problems.surfaces import SURFACES

EVERY = [each.name for each in chosen(None)]
FIRST = ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdaMax", "Nadam", "NadaMax"]
NEARLY = {"dialects.torch.NAdam"}  # its schedule has powers that are no whole numbers
ENDS = """() => state.chosen.map((chosen, k) => {
  const { xs, ys, end } = tracks[k];
  return [chosen.name, pythonOf(field, chosen), end, [xs.at(-1), ys.at(-1)]];
})"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("playground") / "play.html"
    path.write_text(fl.playground.page(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with a_browser() as started:
        yield started


@pytest.fixture
def opened(browser, file):
    """Opens the playground at an address, still, in a window of some size."""
    with contextlib.ExitStack() as stack:

        def open_at(address="", **settings):
            settings = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **settings}
            page = stack.enter_context(a_page(browser, **settings))
            page.goto(f"{file.as_uri()}#{address}")
            return page

        yield open_at


def printed(code):
    """What Python prints, as numbers."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), np.errstate(all="ignore"):
        exec(code.replace("print(opt.rest(w))", "print(*map(repr, map(float, opt.rest(w))))"), {})
    return [float(each) for each in said.getvalue().split()]


def test_it_is_one_file_of_less_than_400_kb_that_begins_with_the_ten(file, opened):
    assert file.stat().st_size < 400_000
    page = opened()
    assert page.evaluate("state.chosen.map(({ name }) => name)") == FIRST
    assert page.locator(".card").count() == 10
    assert page.evaluate("Object.keys(rules)") == EVERY


@pytest.mark.parametrize("where", [
    "surface=rosenbrock&scale=-6", "surface=beale&noise=0.3&seed=2", "surface=saddle&start=1.25,0.03",
    "surface=bowl&steps=57&scale=2&noise=1", "surface=himmelblau&start=-1,2",
    "surface=own&f=2 x^2/3 - -y^3 %2B abs(x*y)/(1 %2B y^2) - sqrt(x^2 %2B 2)*y&start=0.3,0.7&noise=0.01",
])  # fmt: skip
def test_the_python_that_is_shown_gives_the_numbers_of_the_page(opened, where):
    """For every rule and dialect, at the rate that the page finds and at settings from all over its sliders."""
    everyone = "&".join(f"o={name}" for name in EVERY)
    page = opened(f"{where}&{everyone}")
    page.evaluate("tune(state.chosen.keys())")
    ends = page.evaluate(ENDS)
    page.evaluate("""() => {
      for (const [k, { name, settings }] of state.chosen.entries()) {
        for (const [j, [key, own]] of settingsOf(name).entries()) {
          const every = offered(own);
          settings[key] = every[(7 * k + 13 * j) % every.length];
        }
      }
      newTracks();
    }""")
    ends += page.evaluate(ENDS)
    assert len(ends) == 2 * len(EVERY)
    compared = 0
    for name, code, end, point in ends:
        if end:
            with pytest.raises((fl.NonFiniteGradient, ValueError)):
                printed(code)
        elif name in NEARLY:
            np.testing.assert_allclose(point, printed(code), rtol=1e-9)
        else:
            assert printed(code) == point, (name, code)
            compared += 1
    assert compared > 0.7 * len(ends)


def test_an_address_brings_back_all_that_is_shown(opened):
    said = ("surface=own&f=x^2 + y^4&start=1.5,-0.25&zoom=-2&steps=33&scale=-3&noise=0.5&seed=4&coordinate=1&numbers=1"
            "&looked=1&o=Adam,lr:0.25,eps:0&o=dialects.torch.AdamW,rate:0.1")
    page = opened(said.replace("+", "%2B"))
    address = page.evaluate("address()")
    assert set(unquote_plus(address).split("&")) == set(said.split("&"))
    assert page.locator("#formula").input_value() == "x^2 + y^4"
    assert page.locator("#whose").inner_text() == "torch.AdamW"
    page.locator("#link").click()
    until(page, "location.hash.includes('steps=33')")


@pytest.mark.parametrize("address", [
    "surface=nowhere&start=1&steps=0&scale=x&noise=-1&seed=99&looked=7&o=Adm&o=Adam,lr:-1,beta3:2", "o=__proto__&o=",
    "%%%&&=",
    "start=Infinity,0&steps=1e9&noise=NaN&o=SGD,lr:1e999,toString:1&surface=toString",
])  # fmt: skip
def test_what_an_address_says_wrongly_is_left_out(opened, address):
    page = opened(address)
    assert page.evaluate("state.surface") == "rosenbrock"
    assert page.evaluate("[state.steps, state.scale, state.noise, state.seed]") == [200, 0, 0, 0]
    assert page.evaluate("state.chosen.every(({ settings }) => !('beta3' in settings || settings.lr === -1))")
    assert page.locator(".card").count() >= 1


def test_the_start_is_moved_by_mouse_by_finger_and_by_keys(opened):
    page = opened("surface=bowl&o=SGD")
    box = page.locator("#map").bounding_box()
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 30, middle[1])
    page.mouse.up()
    x, y = page.evaluate("state.start")
    assert x == pytest.approx(30 / box["width"] * 6, abs=0.02)
    assert y == pytest.approx(0.5, abs=0.02)
    page.locator("#start").press("ArrowUp")
    page.locator("#start").press("Shift+ArrowLeft")
    assert page.evaluate("state.start") == pytest.approx([x - 0.012, y + 0.06], abs=1e-3)
    assert page.evaluate("[tracks[0].xs[0], tracks[0].ys[0]]") == page.evaluate("state.start")
    phone = opened("surface=bowl&o=SGD", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    box = phone.locator("#map").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert phone.evaluate("state.start[0]") == pytest.approx(-1.5, abs=0.05)


def test_it_plays_pauses_and_steps(opened):
    page = opened("o=Adam&steps=300")
    assert page.locator("#shown").inner_text() == "step 300 of 300"
    page.locator("#play").click()
    until(page, "state.at > 5 && state.at < 300")
    page.locator("#play").click()
    at = page.evaluate("state.at")
    page.locator("#on").click()
    page.locator("#on").click()
    page.locator("#back").click()
    assert page.evaluate("state.at") == at + 1
    page.locator("#step").fill("17")
    assert page.locator("#shown").inner_text() == "step 17 of 300"
    assert page.locator("#play").inner_text() == "Play"


def test_a_setting_is_moved_by_its_slider_and_typed_in_its_field(opened):
    page = opened("o=Adam,lr:0.1&surface=bowl")
    first = page.evaluate("tracks[0].xs.at(-1)")
    slider = page.get_by_label("lr", exact=True)
    slider.press("ArrowRight")
    assert page.evaluate("state.chosen[0].settings.lr") == 0.125
    assert page.evaluate("tracks[0].xs.at(-1)") != first
    field = page.get_by_label("beta1, in [0, 1)")
    field.fill("0.77")
    field.press("Enter")
    assert page.evaluate("state.chosen[0].settings.beta1") == 0.77
    field.fill("1.5")
    field.press("Enter")
    assert page.evaluate("state.chosen[0].settings.beta1") == 0.77
    assert field.evaluate("(field) => field.validationMessage") == "beta1 must be in [0, 1)."


@pytest.mark.parametrize(("text", "said"), [
    ("x +", "Something is missing at the end."), ("z^2", "There is no z here."), ("alert(1)", "There is no alert"),
    ("x^y", "An exponent must be a number"), ("sin x", "sin takes parentheses: sin(x)."), ("", "Something is missing"),
    ("(x", "A parenthesis is not closed."), ("x) + 1", ") does not belong"),
])  # fmt: skip
def test_a_function_that_is_none_is_answered_by_a_sentence(opened, text, said):
    page = opened("surface=own&o=Adam")
    page.locator("#formula").fill(text)
    assert said in page.locator("#wrong").inner_text()
    page.locator("#formula").fill("x^2 + y^2")
    assert page.locator("#wrong").inner_text() == ""
    assert page.evaluate("tracks[0].heights[0]") == 8


def test_a_typed_function_has_its_own_gradient(opened):
    page = opened("surface=own&o=SGD")
    for text in ("exp(-x^2) * sin(3y) + tanh(x y)", "log(x^2 + 1)/(2 + cos(y))", "-x^-2 + pi x e",
                 "sqrt(x^2 + 3)^3 - abs(y)^2.5 + 2(x - 1)(y + 1)/3", "2x^3y^2 - (x - y)^5/7 + sign(x)*1e-1"):
        value, slope, *apart = page.evaluate("""(text) => {
          const f = typed(text), h = 1e-6, x = 0.7, y = -1.3;
          return [f.value(x, y), f.gradient(x, y), (f.value(x + h, y) - f.value(x - h, y)) / (2 * h),
            (f.value(x, y + h) - f.value(x, y - h)) / (2 * h)];
        }""", text)
        assert slope == pytest.approx(apart, rel=1e-6, abs=1e-8), text
        python = page.evaluate("(text) => inPython(parsed(text))", text)
        assert eval(python, {"np": np, "x": 0.7, "y": -1.3}) == pytest.approx(value, rel=1e-14), python


def test_settings_are_called_as_in_python(opened):
    page = opened("o=dialects.torch.AdamW")
    labels = page.locator(".slider input[type=range]").evaluate_all("(all) => all.map((each) => each.ariaLabel)")
    assert labels == ["lr", "betas[0]", "betas[1]", "eps", "weight_decay"]


def test_those_that_are_shown_differ_in_colour_and_in_name(opened):
    page = opened("o=Adam&o=dialects.torch.Adam&o=Nadam&o=Adam,lr:0.5&o=dialects.keras.Nadam&o=Lion&o=SGD")
    assert page.evaluate("new Set(state.chosen.map((_, k) => colour(k))).size") == 7
    assert page.evaluate("new Set(state.chosen.map((_, k) => styleOf(k).outline)).size") == 7
    names = ["Adam", "torch.Adam", "Nadam", "Adam 2", "keras.Nadam", "Lion", "SGD"]
    assert page.locator(".card .name").all_inner_texts() == names
    everyone = opened("&".join(f"o={name}" for name in EVERY))
    assert everyone.evaluate("state.chosen.every((_, k) => colour(k))")


def test_the_formula_is_shown_in_symbols_and_in_the_numbers_of_a_step(opened):
    """For every rule; the numbers of a line come to what is behind its sign of equality."""
    page = opened("surface=bowl&steps=20&o=Adam,lr:0.5")
    text = "document.querySelector('#formulas').textContent"
    assert page.evaluate(text) == "m←β1m+(1−β1)gv←β2v+(1−β2)g2Δθ=−η1−β2t1−β1tmv+"
    page.locator("#numbers").check()
    page.locator("#step").fill("1")
    assert page.evaluate(text) == ("m←0.9⋅0+(1−0.9)⋅(−3.5)=−0.35v←0.999⋅10−8+(1−0.999)⋅(−3.5)2=0.01225"
                                   "Δθ=−0.5⋅1−0.99911−0.91⋅(−0.35)0.01225+=0.5")
    found = page.evaluate("""() => Object.keys(rules).map((name) => {
      Object.assign(state, { chosen: [{ name, settings: {} }], looked: 0, at: 7 });
      newTracks();
      return [name, DATA.optimizers[name].formulas.length, document.querySelector("#formulas").textContent];
    })""")
    for name, formulas, shown in found:
        assert formulas >= 1, name
        assert not re.search(r"[{}]|undefined|null", shown), name


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(opened, width, dark):
    page = opened("&".join(f"o={name}" for name in FIRST), viewport={"width": width, "height": 800},
                  color_scheme="dark" if dark else "light")  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('button, input, select')].every((e) => e.labels?.length"
                         " || e.ariaLabel || e.textContent.trim())")  # fmt: skip


def test_rules_of_ones_own_can_be_played_with(browser, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code, *capsys.readouterr()

    (tmp_path / "mine.py").write_text("import fallline as fl\n@fl.rule\ndef signed(g, m=0, *, lr=0.1, beta=0.9):\n"
                                      "    m = beta*m + g\n    return -lr*fl.sign(m), m\n")
    code, out, err = run_command("playground", "--optimizers", "mine.py:signed, dialects.torch.Adam",
                                 "--script", "m.mjs", "--out", "p.html")
    assert (code, out, err) == (0, "Page: p.html\nModule: m.mjs\n", "")
    with a_page(browser) as page:
        page.goto((tmp_path / "p.html").as_uri())
        assert page.locator(".card .name").all_inner_texts() == ["signed", "torch.Adam"]
    assert "export {" in (tmp_path / "m.mjs").read_text()
    for given, said in ((["--optimizers", "Muon"], "Muon cannot be written as JavaScript: Muon is a function of whole"),
                        (["--optimizers", "Adm"], "Did you mean Adam?"), (["--out", "no/p.html"], "cannot be written")):
        code, out, err = run_command("playground", *given)
        assert (code, out) == (2, "")
        assert said in err


def test_a_name_is_text_whatever_is_in_it(browser, tmp_path):
    names = ["</script><script>window.hurt = 1</script>", "<img src=x onerror='window.hurt = 1'>", "<!-- <script>",
             "a'b\"c`${1}"]
    path = tmp_path / "p.html"
    path.write_text(fl.playground.page({name: fl.SGD(0.1) for name in names}), encoding="utf-8")
    with a_page(browser) as page:
        page.goto(path.as_uri())
        assert page.locator(".card .name").all_inner_texts() == names
        assert page.evaluate("window.hurt") is None


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_has_its_minima_its_target_and_its_gradient(name):
    surface = SURFACES[name]
    assert all(surface.value_and_grad(np.array(at))[0] < 1e-9 < surface.target for at in surface.minima)
    w, h = np.array(surface.start), 1e-6
    apart = [(surface.value_and_grad(w + d)[0] - surface.value_and_grad(w - d)[0]) / (2 * h) for d in h * np.eye(2)]
    np.testing.assert_allclose(surface.value_and_grad(w)[1], apart, rtol=1e-5, atol=1e-6)
