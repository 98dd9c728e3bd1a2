"""The points that optimizers visit on a surface, and their moving picture."""

import sys

import numpy as np
import pytest

import fallline as fl
from fallline.cli import main
from fallline.race import Surface, tracks
from fallline.race.contenders.contender import TEN
from needed import need

SLOPE = Surface("Slope", "down to the left", lambda x, y: (x + y * y, 1.0, 2 * y), start=(1.0, 1.0),
                window=((-2, 2), (-2, 2)), minima=(), target=1e-3)


def test_an_optimizer_steps_as_it_was_given():
    found = tracks("bowl", {"mine": fl.Adam(0.1), "rested": fl.Nesterov(0.001)}, steps=7, jobs=1)
    for name, opt in (("mine", fl.Adam(0.1)), ("rested", fl.Nesterov(0.001))):
        w = np.array(found.surface.start)
        for point, value in zip(found.points[name], found.values[name], strict=True):
            assert np.array_equal(point, opt.rest(w))
            assert value == found.surface.value_and_grad(point)[0]
            w = opt.step(w, found.surface.value_and_grad(w)[1])
    assert found.points["mine"].shape == (8, 2)


@pytest.mark.slow
def test_names_are_tuned_as_for_the_report():
    result = fl.race.run("bowl", ["SGD", "Muon"], steps=2, repeats=1, jobs=1, surfaces=("saddle",))
    found = tracks("saddle", ["SGD", fl.Muon], jobs=1)
    for path in result.document["surfaces"][0]["paths"]:
        np.testing.assert_allclose(found.points[path["name"]], path["points"], rtol=1e-4, atol=1e-8)


def test_a_surface_of_ones_own_is_descended_and_what_diverges_stops():
    found = tracks(SLOPE, {"SGD": fl.SGD(0.25), "wild": fl.SGD(1e200)}, steps=4, jobs=1)
    np.testing.assert_array_equal(found.points["SGD"], [[1 - 0.25 * k, 0.5**k] for k in range(5)])
    assert len(found.points["wild"]) < 5
    assert np.isfinite(found.points["wild"]).all()


def test_a_picture_moves_ends_with_the_last_step_and_is_small(tmp_path):
    pillow = need("PIL.Image")
    need("matplotlib")
    rates = {name: fl.OPTIMIZERS[name](**{"eps": 1e-4} if name == "AdaDelta" else {"lr": 1e-2}) for name in TEN}
    found = tracks("rosenbrock", rates, steps=100, jobs=1)
    for name in ("ten.gif", "ten.WebP"):
        found.animate(tmp_path / name, seconds=2)
        frames = []
        with pillow.open(tmp_path / name) as picture:
            for k in range(picture.n_frames):
                picture.seek(k)
                frames.append(np.asarray(picture.convert("RGB"), dtype=int))
                duration = picture.info["duration"]
        assert (20 <= len(frames) <= 30, duration) == (True, 2000)
        assert abs(frames[0] - frames[-1]).max() > 100
        assert (tmp_path / name).stat().st_size < 300_000


def test_one_that_diverged_and_one_that_is_alone_have_a_picture_too(tmp_path):
    need("matplotlib")
    tracks(SLOPE, {"wild": fl.SGD(1e200)}, steps=4, jobs=1).animate(tmp_path / "one.gif", seconds=0.2)
    assert (tmp_path / "one.gif").read_bytes()[:3] == b"GIF"


def test_the_picture_of_the_readme_is_below_its_limit():
    from places import DOCS

    assert (DOCS / "images" / "ten.gif").stat().st_size < 1_500_000


def test_bad_arguments_get_one_clear_sentence(tmp_path, monkeypatch):
    for arguments, message in (
        ({"surface": "moon"}, "surface must be one of rosenbrock, .* or a fallline.race.Surface. Got 'moon'"),
        ({"surface": abs}, "surface must be a name or a fallline.race.Surface. Got"),
        ({"steps": 0}, "steps must be at least 1. Got 0."),
        ({"optimizers": ["Adamm"]}, "optimizers must be among .* Did you mean Adam"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            tracks(**{"surface": "bowl", "jobs": 1} | arguments)
    found = tracks("bowl", [fl.SGD(0.01)], steps=3, jobs=1)
    for name, seconds, message in (("a.png", 8, "path of animate must end with .gif or .webp. Got 'a.png'"),
                                   ("a.gif", 0, "seconds of animate must be > 0. Got 0")):
        with pytest.raises(ValueError, match=message):
            found.animate(tmp_path / name, seconds=seconds)
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'animate needs matplotlib: pip install "fallline\[pictures\]"'):
        found.animate(tmp_path / "a.gif")


def test_the_command_draws_one(tmp_path, capsys, monkeypatch):
    need("matplotlib")
    monkeypatch.chdir(tmp_path)
    for arguments, code in (((), 0), (("--surface", "moon"), 2), (("a.png",), 2), (("nowhere/a.gif",), 2)):
        with pytest.raises(SystemExit) as ended:
            main(["tracks", "--optimizers", "SGD,Adam", "--steps", "20", "--jobs", "1", *arguments])
        out, err = capsys.readouterr()
        assert (ended.value.code, err.count("\n")) == (code, int(code > 0)), err
        assert (out == "Picture: tracks.gif\n") == (code == 0)
    assert (tmp_path / "tracks.gif").exists()
