"""Programs of other libraries' users, with few lines changed, reach the answers that they had."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

import fallline as fl
from needed import need, need_for_a_process
from programs import PROGRAMS, changed, original, program

FIRST = {"equinox", "flax", "numpyro", "optax", "sklearn"}  # what the environment of all other tests has


class Client(NamedTuple):
    """What a program needs; how near its numbers come to those of its original, SAME being a relative 1e-9; what it
    says on stderr that its original does not; and why more than three lines change, if they do."""

    needs: tuple[str, ...]
    within: tuple[float, ...] | float | None
    says: str = ""
    why: str = ""


SAME = None  # the same formula from the same start: equal but for rounding
# Of other fits a hundredth of the standard errors, that of a likelihood's logarithm being half its square.
CLIENTS = {
    "autograd/after": Client(("autograd",), SAME),
    "ceviche/after": Client(("autograd", "ceviche"), SAME),
    "devito/after": Client((), 1e-4),  # a thousandth of what tells a layer from its neighbour
    "equinox/after": Client(("equinox", "optax"), 2e-5),  # of float32, in which 100 steps are taken
    "flax/after": Client(("flax", "optax"), 2e-5),
    "gaussian_process/after": Client(
        ("sklearn",), (1e-2, 2.8e-3, 2.6e-3, 5e-5), why="a function must return the point and the value"),
    "grid_search/after": Client(
        ("sklearn",), SAME, why="the estimator's argument is another: two lines of class, three of use"),
    "lmfit/after": Client(("lmfit",), (6e-4, 1e-4, 1e-4)),
    "micrograd/after": Client(("micrograd",), SAME, why="its parameters are numbers, each set by itself"),
    "mlx/after": Client(("mlx.core",), 1e-5, why="its arrays go to NumPy and back"),  # 1e-5: of float32
    "numpy_ml/after": Client(
        ("numpy_ml",), SAME, why="layer.update() clears the gradients too"),
    "numpyro/after": Client(("numpyro", "optax"), 2e-5),
    "pennylane/after": Client(("pennylane",), SAME),
    "pints/after": Client(("pints",), (2e-5, 5e-3, 1e-5)),
    "pints/after_in_its_controller": Client(("pints",), SAME, why="the controller takes classes of PINTS' own kind"),
    "pyhf/after": Client(("pyhf",), (5e-3, 6e-4, 1e-3, 1e-4)),
    "pyhf_hypotest/after": Client(("pyhf",), 1e-4, why="what holds a parameter must be said to every fit"),
    "qiskit/after": Client(("qiskit_algorithms",), 1.6e-3),  # the accuracy that chemists ask for, in hartree
    "statsmodels/after": Client(("statsmodels",), 1.6e-3, says="OptimizeWarning: Adam does not use hess="),
    "statsmodels/after_extra_fit_funcs": Client(
        ("statsmodels",), 1.6e-3, why="a function must return the point and what statsmodels asks of a run"),
    "tequila/after": Client(("tequila",), SAME, why="tequila's gradient is compiled by the line before"),
    "tidy3d/after": Client(("optax",), 5e-6),  # optax computes in float32: 50 steps of its precision
}


def clients(name):
    """The program's name, marked if it is for the second environment."""
    return pytest.param(name, marks=[] if set(CLIENTS[name].needs) <= FIRST else pytest.mark.clients)


def ran(file):
    """The numbers on the last line that a program prints, and what it says on stderr."""
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(done.stdout.splitlines()[-1].split(), dtype=float), done.stderr


def test_every_program_is_in_the_table():
    assert sorted(CLIENTS) == PROGRAMS


@pytest.mark.parametrize("name", CLIENTS)
def test_three_lines_change_or_there_is_a_reason(name):
    assert (changed(name) > 3) == bool(CLIENTS[name].why), changed(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [clients(name) for name in CLIENTS])
def test_a_program_reaches_the_answer_of_its_original_and_says_no_more(name):
    client = CLIENTS[name]
    need_for_a_process(*client.needs)
    (expected, before), (found, after) = ran(original(name)), ran(program(name))
    rtol, atol = (1e-9, 0) if client.within is SAME else (0, np.array(client.within))
    np.testing.assert_array_less(np.abs(found - expected), atol + rtol * np.abs(expected), strict=False)
    more = "\n".join(line for line in after.splitlines() if line not in before)
    assert client.says in more if client.says else not more, more


@pytest.mark.clients
def test_an_array_of_mlx_is_refused_with_the_call_that_makes_it_numpys():
    w = need("mlx.core").array([1.0, 2.0])
    with pytest.raises(TypeError, match=r"the parameter must be an array .* Got array: pass numpy.asarray\(\.\.\.\)"):
        fl.Adam().step(w, w)
    assert fl.SGD(0.5).step(np.asarray(w), np.asarray(w)).tolist() == [0.5, 1.0]


@pytest.mark.clients
def test_who_takes_names_of_methods_alone_is_told_what_takes_an_optimizer():
    lmfit = need("lmfit")
    params = lmfit.create_params(a=1.0)
    with pytest.raises(AttributeError, match=r"SGD is an optimizer and no name .*scalar_minimize\(method=opt"):
        lmfit.minimize(lambda p: [p["a"].value], params, method=fl.SGD())
