"""A Gaussian peak, fitted to noisy counts with lmfit."""

import lmfit
import numpy as np

import fallline as fl

x = np.linspace(0, 10, 101)
y = 5 * np.exp(-((x - 4) ** 2) / 2 / 0.8**2) + np.random.default_rng(0).normal(0, 0.2, x.size)


def residual(p):
    return p["height"] * np.exp(-((x - p["center"]) ** 2) / 2 / p["width"] ** 2) - y


params = lmfit.create_params(height={"value": 3, "min": 0}, center=5, width={"value": 1, "min": 0.1, "max": 4})
fitter = lmfit.Minimizer(residual, params)
result = fitter.scalar_minimize(method=fl.Adam(0.05))
print(lmfit.fit_report(result))
print(*result.params.valuesdict().values())
