"""What `fl.minimize` takes: trees, arrays of any shape, precision and library; and what it refuses."""

import math
from collections import namedtuple

import ml_dtypes
import numpy as np
import pytest
import scipy.optimize

import fallline as fl
from bowls import CENTRE, START, Counted, bowl, bowl_der
from needed import need

# ---- trees, shapes, precision ----------------------------------------------------------------------------------------


def tree_fun(p):
    return float((p["W"] ** 2).sum() + (p["b"][0] - 1) ** 2 + ((p["b"][1] + 2) ** 2).sum())


def tree_der(p):
    return {"W": 2 * p["W"], "b": [2 * (p["b"][0] - 1), 2 * (p["b"][1] + 2)]}


def tree():
    return {"W": np.array([[1.0, -2.0], [0.5, 3.0]]), "b": [4.0, [1.0, -1.0]]}


@pytest.mark.parametrize("jac", [tree_der, None, True])
@pytest.mark.parametrize("bounds", [None, [(0.25, None)] + [(None, None)] * 4 + [(None, -1.5)] * 2])
def test_x0_may_be_a_tree(jac, bounds):
    x0 = tree()
    fun = (lambda p: (tree_fun(p), tree_der(p))) if jac is True else tree_fun
    result = fl.minimize(fun, x0, jac=jac, method=fl.Adam(lr=0.1), bounds=bounds)
    assert result.success
    np.testing.assert_allclose(result.x["W"], [[0.25 if bounds else 0, 0], [0, 0]], atol=1e-4)
    np.testing.assert_allclose(result.x["b"][0], 1, atol=1e-4)
    np.testing.assert_allclose(result.x["b"][1], [-2, -2], atol=1e-4)
    np.testing.assert_allclose(result.jac["b"][1], [0, 0], atol=1e-4)
    assert x0["b"] == [4.0, [1.0, -1.0]]
    np.testing.assert_array_equal(x0["W"], tree()["W"])


def test_settings_by_leaf_reach_the_leaves():
    method = fl.SGD(lr={"W": 0.1, "b": 0.0})
    result = fl.minimize(tree_fun, tree(), jac=tree_der, method=method, options={"maxiter": 1})
    np.testing.assert_allclose(result.x["W"], 0.8 * tree()["W"])
    assert result.x["b"][0] == 4.0


def test_a_namedtuple_of_numbers_is_a_tree():
    Point = namedtuple("Point", "x y")
    result = fl.minimize(lambda p: float((p.x - 1) ** 2 + (p.y + 1) ** 2), Point(0.0, 0), method=fl.Adam(lr=0.1))
    assert type(result.x) is Point
    assert (result.x.x, result.x.y) == (pytest.approx(1, abs=1e-4), pytest.approx(-1, abs=1e-4))


def test_a_list_of_unequal_lists_is_a_tree_of_arrays():
    result = fl.minimize(lambda p: float((p[0] ** 2).sum() + (p[1] ** 2).sum()), [[1, 2], [3]], method=fl.Adam(lr=0.1))
    assert [leaf.shape for leaf in result.x] == [(2,), (1,)]
    assert result.success


def test_arrays_keep_their_shape_and_floating_dtype():
    x0 = np.full((2, 3), 2, dtype=np.float32)
    result = fl.minimize(lambda x: np.float32((x * x).sum()), x0, jac=lambda x: 2 * x, method=fl.Adam(lr=0.1))
    assert (result.x.shape, result.x.dtype, result.jac.dtype) == ((2, 3), np.float32, np.float32)
    assert result.success
    nested = fl.minimize(lambda x: (x * x).sum(), [[1, 2], [3, 4]], jac=lambda x: 2 * x, method=fl.Adam(lr=0.1))
    assert nested.x.shape == (2, 2)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
def test_finite_differences_agree_with_the_gradient_in_each_leafs_precision(jac):
    x0 = {"a": np.array([0.3, 1.7], dtype=np.float32), "b": np.array([1.1, -0.4])}

    def fun(p):
        return float(np.sin(p["a"]).sum() + (p["b"] ** 3).sum())

    result = fl.minimize(fun, x0, jac=jac, options={"maxiter": 0})
    np.testing.assert_allclose(result.jac["a"], np.cos(x0["a"]), rtol=5e-3)
    np.testing.assert_allclose(result.jac["b"], 3 * x0["b"] ** 2, rtol=1e-6)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy"])
def test_finite_differences_suit_the_precision_that_fun_computes_in(library):
    xp = need(library) if library != "numpy" else np

    def fun(x):
        return (xp.asarray(x, dtype=xp.float32) ** 2).sum()

    result = fl.minimize(fun, [1.0, -2.0], options={"maxiter": 0})
    np.testing.assert_allclose(result.jac, [2, -4], rtol=5e-3)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_x0_fun_and_jac_may_come_from_another_library(library):
    xp = need(library)
    x0 = xp.asarray([1.0, -2.0], dtype=xp.float32)
    result = fl.minimize(
        lambda x: (xp.asarray(x) ** 2).sum(), x0, jac=lambda x: 2 * xp.asarray(x), method=fl.Adam(lr=0.1)
    )
    assert result.success
    assert (type(result.x), result.x.dtype, type(result.jac)) == (np.ndarray, np.float32, np.ndarray)
    np.testing.assert_array_equal(np.asarray(x0), [1.0, -2.0])


def test_finite_diff_rel_step_is_passed_on():
    x0 = np.array([2.0, 4.0, 8.0])
    for rel_step in (1e-3, [1e-3, 1e-2, 1e-1]):
        fun = Counted(bowl)
        fl.minimize(fun, x0, options={"maxiter": 0, "finite_diff_rel_step": rel_step})
        moved = [(x - x0)[k] for k, x in enumerate(fun.copies[1:])]
        np.testing.assert_allclose(moved, np.multiply(rel_step, x0), rtol=1e-9)
        fixed = Counted(bowl)
        fl.minimize(
            fixed, x0, bounds=[(0, 9), (4, 4), (0, 9)], options={"maxiter": 0, "finite_diff_rel_step": rel_step}
        )
        np.testing.assert_array_equal(fixed.copies, [fun.copies[k] for k in (0, 1, 3)])


def test_an_empty_x0_is_solved_already():
    result = fl.minimize(lambda x: 1.0, [], jac=lambda x: x)
    assert (result.success, result.nit, result.fun) == (True, 0, 1.0)


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ({"method": "adm"}, ValueError, "Unknown method 'adm' of minimize. Known methods: SGD, Momentum, Nesterov"),
    ({"method": 3}, TypeError, "method of minimize must be an optimizer such as fallline.Adam(lr=1e-2)"),
    ({"method": fl.weight_decay}, TypeError, "a class, a rule or a name. Got <after weight_decay("),
    ({"options": {"maxiters": 3}}, ValueError, "Unknown option 'maxiters' of minimize. Known options: maxiter, gtol"),
    ({"options": {"maxiter": 1e4}}, TypeError, "maxiter of minimize must be a whole number ≥ 0. Got 10000.0"),
    ({"options": {"maxiter": -1}}, ValueError, "maxiter of minimize must be a whole number ≥ 0. Got -1"),
    ({"options": {"gtol": "x"}}, TypeError, "gtol of minimize must be a number ≥ 0"),
    ({"options": {"ftol": -1}}, ValueError, "ftol of minimize must be a number ≥ 0. Got -1"),
    ({"tol": math.nan}, ValueError, "gtol of minimize must be a number ≥ 0. Got nan"),
    ({"constraints": {"type": "eq", "fun": bowl}}, ValueError, "minimize takes no constraints"),
    ({"hess": np.eye}, ValueError, "minimize takes no hess:"),
    ({"hessp": np.eye}, ValueError, "minimize takes no hessp"),
    ({"bounds": [(0, 1), (3, 2), (0, 1)]}, ValueError, "lower ≤ upper. Got (3.0, 2.0) at index 1"),
    ({"bounds": [(0, 1), (0, math.nan), (0, 1)]}, ValueError, "lower ≤ upper. Got (0.0, nan) at index 1"),
    ({"bounds": (1, 0)}, ValueError, "lower ≤ upper. Got (1.0, 0.0) at index 0."),
    ({"bounds": [(0, 1)]}, ValueError, "or a pair for each of the 3 parameters. Got"),
    ({"bounds": "ab"}, ValueError, "bounds of minimize must be a pair (lower, upper), None for no bound, a tree of"),
    ({"jac": "4-point"}, ValueError, "one of 2-point, 3-point, cs. Got '4-point'"),
    ({"jac": lambda x: x[:2]}, ValueError, "gradient from jac of minimize must have shape (3,), like x. Got (2,)"),
    ({"jac": lambda x: x[:, None]}, ValueError, "Got (3, 1)"),
    ({"jac": lambda x: x * 1j}, TypeError, "must be real numbers"),
    ({"jac": lambda x: None}, TypeError, "must be real numbers. Got NoneType"),
    ({"jac": True}, TypeError, "fun of minimize with jac=True must return (value, gradient). Got float"),
    ({"fun": lambda x: x}, ValueError, "fun of minimize must return one real number. Got ndarray of shape (3,)"),
    ({"fun": lambda x: None}, TypeError, "fun of minimize must return one real number. Got NoneType"),
    ({"fun": lambda x: 1j}, TypeError, "fun of minimize must return one real number. Got complex"),
    ({"fun": lambda x: (bowl(x), bowl_der(x))}, ValueError, "Got tuple. If it is (value, gradient), pass jac=True."),
    ({"fun": lambda x: [bowl(x), 0.0]}, ValueError, "Got list. If it is (value, gradient), pass jac=True."),
    ({"fun": lambda x: [[1.0, 2.0], [3.0], 4.0]}, ValueError, "fun of minimize must return one real number. Got list."),
    ({"jac": lambda x: (bowl(x), bowl_der(x))}, TypeError, "Got tuple. If it is (value, gradient), pass that function"),
    ({"jac": lambda x: (bowl_der(x), x)}, ValueError, "Got (2, 3). If it is (value, gradient), pass that function as"),
    ({"jac": lambda x: [x, x[:1], 1.0]}, TypeError, "gradient from jac of minimize must be real numbers. Got list."),
    ({"fun": 3}, TypeError, "fun of minimize must be a function of x. Got int"),
    ({"x0": [1j]}, TypeError, "x0 of minimize must be real, as SciPy's minimisers have it: pass the real and the"),
    ({"x0": np.ones(3, np.complex64)}, TypeError, "(z.real, z.imag). Got complex64"),
    ({"x0": np.ones(3, ml_dtypes.bfloat16)}, TypeError, "convert it, x0.astype(np.float64). Got bfloat16"),
    ({"x0": np.ones(3, np.longdouble)}, TypeError, "must be float16, float32 or float64, which SciPy's"),
    ({"x0": None}, TypeError, "x0 of minimize must be real numbers or a tree of arrays of them. Got None"),
    ({"x0": {}}, TypeError, "Got {}"),
    ({"options": ["maxiter"]}, TypeError, "options of minimize must be a dict. Got list"),
    ({"x0": "abc"}, TypeError, "x0 of minimize must be real numbers"),
    ({"x0": np.ma.array([1.0, 2.0], mask=[0, 1])}, TypeError, "Got MaskedArray"),
    ({"x0": {"a": np.array([True])}}, TypeError, "of dtype bool"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=lambda case: str(case)[:24])
def test_bad_arguments_are_refused_in_one_sentence(change, error, message):
    arguments = {"fun": bowl, "x0": START, "jac": bowl_der, **change}
    if "fun" in change:
        arguments["jac"] = None
    with pytest.raises(error) as caught:
        fl.minimize(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"options": {"maxfun": 3, "workers": 2, "maxiter": 50}},
     "Adam does not use the option 'maxfun', the option 'workers'. Options of minimize: maxiter, gtol"),
    ({"hess": lambda x: np.eye(3), "options": {"maxiter": 50}}, "Adam does not use hess=. Options"),
    ({"hessp": lambda x, p: p, "options": {"maxiter": 50}}, "Adam does not use hessp=. Options"),
])  # fmt: skip
def test_a_scipy_method_passes_over_what_scipys_own_do_with_their_warning(change, message):
    def run(**more):
        return scipy.optimize.minimize(bowl, START, jac=bowl_der, method=fl.Adam(0.1), **more)

    with pytest.warns(scipy.optimize.OptimizeWarning, match=message) as caught:
        found = run(**change)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(found.x, run(options={"maxiter": 50}).x)


def test_a_scipy_method_refuses_constraints_which_it_would_break():
    with pytest.raises(ValueError, match="minimize takes no constraints"):
        scipy.optimize.minimize(bowl, START, jac=bowl_der, method=fl.Adam(), constraints={"type": "eq", "fun": bowl})


@pytest.mark.parametrize("empty", [(), [], {}, None])
def test_no_constraints_are_fine(empty):
    assert fl.minimize(bowl, CENTRE, jac=bowl_der, constraints=empty).success


def test_a_gradient_that_is_another_tree_is_refused():
    with pytest.raises(ValueError, match="gradient from jac of minimize must be a tree of the same structure as x0"):
        fl.minimize(tree_fun, tree(), jac=lambda p: {"W": p["W"]})
    with pytest.raises(ValueError, match=r"as x0: missing .*If it is \(value, gradient\), pass that function"):
        fl.minimize(tree_fun, tree(), jac=lambda p: (tree_fun(p), tree_der(p)))


def test_gradients_of_torch_are_read_whatever_their_dtype_and_what_has_no_numbers_is_refused():
    torch = need("torch")

    def minimized(jac):
        return fl.minimize(lambda x: float(x @ x), [1.0, 2.0], jac=jac, method=fl.SGD(0.1), options={"maxiter": 3})

    expected = minimized(lambda x: 2 * x).x
    assert np.array_equal(minimized(lambda x: torch.tensor(2 * x, requires_grad=True)).x, expected)
    assert np.allclose(minimized(lambda x: torch.tensor(2 * x).bfloat16()).x, expected, rtol=1e-2)
    for bad in (lambda x: torch.ones(2, device="meta"), lambda x: np.ma.array(2 * x, mask=[1, 0])):
        with pytest.raises(TypeError, match=r"The gradient from jac of minimize must be real numbers\. Got .*: pass "):
            minimized(bad)
    with pytest.raises((TypeError, ValueError), match="fun of minimize must return one real number"):
        fl.minimize(lambda x: np.ma.masked, [1.0], jac=lambda x: x)


def test_a_value_that_is_not_finite_leaves_x_where_it_is_under_skip():
    calls = []

    def fun(x):
        calls.append(x.copy())
        return np.nan, 2 * x

    result = fl.minimize(fun, [3.0], jac=True, method=fl.SGD(0.1, nonfinite="skip"))
    assert [x.tolist() for x in calls] == [[3.0]] * 5
    assert (result.x.tolist(), result.status) == ([3.0], 3)
