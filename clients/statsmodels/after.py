"""A logistic regression with statsmodels."""

import numpy as np
import statsmodels.api as sm

import fallline as fl

rng = np.random.default_rng(0)
X = sm.add_constant(rng.normal(size=(300, 3)))
y = rng.random(300) < 1 / (1 + np.exp(-X @ [0.5, 1.0, -2.0, 0.3]))

fit = sm.Logit(y, X).fit(method="minimize", min_method=fl.Adam(0.1), maxiter=1000)
print(fit.summary())
print(*fit.params)
