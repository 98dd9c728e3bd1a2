"""Growth rate and capacity of a population, fitted to noisy counts with PINTS."""

import numpy as np
import pints
import pints.toy

model = pints.toy.LogisticModel()
times = np.linspace(0, 60, 60)
noise = np.random.default_rng(0).normal(0, 2, times.size)
problem = pints.SingleOutputProblem(model, times, model.simulate([0.15, 50], times) + noise)
error = pints.MeanSquaredError(problem)

controller = pints.OptimisationController(error, [0.14, 49], sigma0=[0.01, 0.01], method=pints.Adam)
controller.set_log_to_screen(False)
controller.set_max_iterations(1000)
x, f = controller.run()
print(*x, f)
