"""A lens by topology optimisation with ceviche: light from a line source, focused onto a point."""

import autograd.numpy as np
import ceviche
from ceviche.optimizers import adam_optimize

omega, dl, shape, pml = 2 * np.pi * 200e12, 5e-8, (36, 30), [8, 8]
source = np.zeros(shape)
source[10, 10:20] = 1
focus = np.zeros(shape)
focus[26, 15] = 1
design = np.zeros(shape)
design[13:20, 9:21] = 1


def intensity(density):
    eps = 1 + 3 * design * density.reshape(shape)
    field = ceviche.fdfd_ez(omega, dl, eps, pml).solve(source)[2]
    return np.sum(focus * np.abs(field) ** 2) / reference


reference = 1
reference = intensity(np.zeros(source.size))
gradient = ceviche.jacobian(intensity, mode="reverse")
density = 0.5 * np.ones(source.size)
density, values = adam_optimize(intensity, density, gradient, Nsteps=30, step_size=0.05, bounds=(0, 1), direction="max",
                                verbose=False)
print(intensity(density))
