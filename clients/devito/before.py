"""Full-waveform inversion, as Devito's tutorials have it: the speeds of five layers from what a receiver hears.

Devito compiles its operators by a C compiler; a wave in one dimension and its adjoint, in NumPy, stand in here.
"""

import numpy as np
from scipy.optimize import minimize

cells, steps, dt = 100, 260, 0.3
layer = np.arange(cells) // 20
laplace = np.diag(np.ones(cells - 1), 1) + np.diag(np.ones(cells - 1), -1) - 2 * np.eye(cells)
time = dt * np.arange(steps)
source = np.zeros((steps, cells))
source[:, 10] = (1 - 0.5 * (time - 8) ** 2) * np.exp(-0.25 * (time - 8) ** 2)


def heard(speed):
    """The waves, by the explicit scheme, and what drives them."""
    u, force = np.zeros((steps + 2, cells)), np.zeros((steps, cells))
    for n in range(steps):
        force[n] = laplace @ u[n + 1] + source[n]
        u[n + 2] = 2 * u[n + 1] - u[n] + dt**2 * speed[layer] ** 2 * force[n]
    return u[2:], force


def misfit(speed):
    """How far the waves at two receivers are from those measured, and its gradient by the adjoint state."""
    u, force = heard(speed)
    back, slope = np.zeros((steps + 2, cells)), np.zeros(cells)
    for n in reversed(range(steps)):
        back[n] = 2 * back[n + 1] - back[n + 2] + dt**2 * laplace @ (speed[layer] ** 2 * back[n + 1])
        back[n, receivers] += u[n, receivers] - measured[n]
        slope += dt**2 * back[n] * force[n]
    value = np.sum((u[:, receivers] - measured) ** 2) / 2
    return value, np.bincount(layer, 2 * speed[layer] * slope)


receivers = [5, 95]
measured = heard(np.array([1.5, 1.8, 1.6, 2.0, 1.7]))[0][:, receivers]
start, box = np.full(5, 1.7), [(1.4, 2.2)] * 5
result = minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=box)
print(*result.x)
