"""A logistic regression with statsmodels."""

import numpy as np
import statsmodels.api as sm

import fallline as fl

rng = np.random.default_rng(0)
X = sm.add_constant(rng.normal(size=(300, 3)))
y = rng.random(300) < 1 / (1 + np.exp(-X @ [0.5, 1.0, -2.0, 0.3]))


def adam(f, score, start, fargs, kwargs, maxiter, **unused):
    run = fl.minimize(f, start, fargs, fl.Adam(0.1), jac=score, options={"maxiter": maxiter})
    return run.x, {"converged": run.success, "iterations": run.nit}


fit = sm.Logit(y, X).fit(method="adam", extra_fit_funcs={"adam": adam}, maxiter=1000)
print(fit.summary())
print(*fit.params)
