"""A coating that lets no light back, as Tidy3D's inverse designs go: optax on a density between 0 and 1.

Tidy3D runs its simulations on its makers' servers; a layered coating and its derivative by the adjoint stand in here.
"""

import numpy as np

import fallline as fl

cells = 60
wave = 2 * np.pi / 30  # thirty cells a wavelength in air
laplace = np.diag(np.full(cells - 1, 1.0), 1) + np.diag(np.full(cells - 1, 1.0), -1) - 2 * np.eye(cells) + 0j
laplace[0, 0] += np.exp(1j * wave)  # air in front of it
laplace[-1, -1] += np.exp(2j * wave)  # glass of index 2 behind it
light = np.zeros(cells, dtype=complex)
light[0] = 1 - np.exp(2j * wave)


def transmitted(density):
    """The light that arrives in the glass, and its derivative."""
    operator = laplace + np.diag(wave**2 * (1 + 3 * density))
    field = np.linalg.solve(operator, light)
    adjoint = np.linalg.solve(operator.T, np.eye(cells)[-1] * field[-1].conj())
    return abs(field[-1]) ** 2, -2 * 3 * wave**2 * (adjoint * field).real


params = np.full(cells, 0.5)
optimizer = fl.chain(fl.maximize(), fl.dialects.optax.adam(0.05), fl.bounds(0, 1))
for _ in range(50):
    value, gradient = transmitted(params)
    optimizer.step(params, gradient)
print(transmitted(params)[0])
