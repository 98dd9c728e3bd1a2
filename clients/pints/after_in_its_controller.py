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


class Adam(pints.Optimiser):
    def __init__(self, x0, sigma0=0.1, boundaries=None):
        super().__init__(x0, sigma0, boundaries)
        self.opt = fl.dialects.torch.Adam(min(self._sigma0))
        self.x, self.f, self.best = np.array(x0), np.inf, (np.array(x0), np.inf)

    def ask(self):
        return [self.x.copy()]

    def tell(self, reply):
        [(self.f, gradient)] = reply
        if self.f < self.best[1]:
            self.best = self.x.copy(), self.f
        self.opt.step(self.x, gradient)

    def name(self):
        return repr(self.opt)

    def needs_sensitivities(self):
        return True

    def running(self):
        return self.opt.t > 0

    def x_best(self):
        return self.best[0]

    def f_best(self):
        return self.best[1]

    def x_guessed(self):
        return self.x

    def f_guessed(self):
        return self.f


controller = pints.OptimisationController(error, [0.14, 49], sigma0=[0.01, 0.01], method=Adam)
controller.set_log_to_screen(False)
controller.set_max_iterations(1000)
x, f = controller.run()
print(*x, f)
