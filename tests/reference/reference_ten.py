"""The ten, plainly, as a textbook would print them (see reference_formulas.py)."""

from __future__ import annotations

import numpy as np

TINY = {np.dtype("float32"): 2.0**-126, np.dtype("float64"): 2.0**-1022}


def root(v, tiny):
    return np.sqrt(np.maximum(v, tiny))


def store(a, tiny):
    return np.where(np.abs(a) < tiny, 0.0, a)


class SGD:
    def __init__(self, shape, tiny, lr=1e-3):
        self.t, self.tiny = 0, tiny
        self.lr = lr

    def step(self, g):
        self.t += 1
        return -self.lr * g


class Momentum:
    def __init__(self, shape, tiny, lr=1e-3, momentum=0.9):
        self.t, self.tiny = 0, tiny
        self.lr, self.momentum = lr, momentum
        self.velocity = np.zeros(shape)

    def step(self, g):
        self.t += 1
        velocity = self.momentum * self.velocity - self.lr * g
        self.velocity = store(velocity, self.tiny)
        return velocity


class Nesterov:
    def __init__(self, shape, tiny, lr=1e-3, momentum=0.9):
        self.t, self.tiny = 0, tiny
        self.lr, self.momentum = lr, momentum
        self.velocity = np.zeros(shape)

    def step(self, g):
        self.t += 1
        velocity = self.momentum * self.velocity - self.lr * g
        self.velocity = store(velocity, self.tiny)
        return self.momentum * velocity - self.lr * g


class AdaGrad:
    def __init__(self, shape, tiny, lr=1e-3, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.lr = lr
        self.v = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        v = self.v + g**2
        self.v = store(v, self.tiny)
        return -self.lr * g / root(v, self.tiny)


class RMSProp:
    def __init__(self, shape, tiny, lr=1e-3, rho=0.999, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.lr, self.rho = lr, rho
        self.v = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        v = self.rho * self.v + (1 - self.rho) * g**2
        self.v = store(v, self.tiny)
        return -self.lr * g / root(v, self.tiny)


class AdaDelta:
    def __init__(self, shape, tiny, rho=0.999, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.rho = rho
        self.v = np.full(shape, eps)
        self.d = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        v = self.rho * self.v + (1 - self.rho) * g**2
        delta = -np.sqrt(self.d) / root(v, self.tiny) * g
        self.v = store(v, self.tiny)
        self.d = store(self.rho * self.d + (1 - self.rho) * delta**2, self.tiny)
        return delta


class Adam:
    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.v = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        self.m, self.v = store(m, self.tiny), store(v, self.tiny)
        corrected_lr = self.lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        return -corrected_lr * m / root(v, self.tiny)


class AdaMax:
    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.u = np.zeros(shape)

    def step(self, g):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        u = np.maximum(self.beta2 * self.u, np.abs(g))
        self.m, self.u = store(m, self.tiny), store(u, self.tiny)
        return -self.lr / (1 - self.beta1**self.t) * m / np.maximum(u, self.tiny)


class Nadam:
    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.v = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        self.m, self.v = store(m, self.tiny), store(v, self.tiny)
        ahead = self.beta1 * m + (1 - self.beta1) * g
        corrected_lr = self.lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        return -corrected_lr * ahead / root(v, self.tiny)


class NadaMax:
    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.u = np.zeros(shape)

    def step(self, g):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        u = np.maximum(self.beta2 * self.u, np.abs(g))
        self.m, self.u = store(m, self.tiny), store(u, self.tiny)
        ahead = self.beta1 * m + (1 - self.beta1) * g
        return -self.lr / (1 - self.beta1**self.t) * ahead / np.maximum(u, self.tiny)
