"""Growth rate and capacity of a population, fitted to noisy counts with PINTS."""

import numpy as np
import pints
import pints.toy

import fallline as fl

model = pints.toy.LogisticModel()
times = np.linspace(0, 60, 60)
noise = np.random.default_rng(0).normal(0, 2, times.size)
problem = pints.SingleOutputProblem(model, times, model.simulate([0.15, 50], times) + noise)
error = pints.MeanSquaredError(problem)

run = fl.minimize(error.evaluateS1, [0.14, 49], jac=True, method=fl.Adam(0.01), options={"maxiter": 5000})
print(*run.x, run.fun)
