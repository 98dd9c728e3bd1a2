"""The algorithms once more, plainly, as a textbook would print them: what the library is measured against.

Written from the published formulas alone and sharing no code with the library. Everything is computed in float64;
`tiny`, the smallest normal number of the precision under test, stands under every root and division and is the
size below which a stored number becomes 0. Where a formula decays the parameter, `step` takes it as x.
"""

from __future__ import annotations

import math

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


class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2, with the rate in front of the decay; m-hat and v-hat as printed."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-2):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2, self.weight_decay = lr, beta1, beta2, weight_decay
        self.m = np.zeros(shape)
        self.v = np.full(shape, eps)

    def ahead(self, m, g):
        return m

    def step(self, g, x=0.0):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        self.m, self.v = store(m, self.tiny), store(v, self.tiny)
        m_hat = self.ahead(m, g) / (1 - self.beta1**self.t)
        root_of_v_hat = root(v, self.tiny) / np.sqrt(1 - self.beta2**self.t)
        return -self.lr * (m_hat / root_of_v_hat + self.weight_decay * x)


class NadamW(AdamW):
    """The same on Nadam: the first moment looked one step ahead."""

    def ahead(self, m, g):
        return self.beta1 * m + (1 - self.beta1) * g


class Lion:
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, shape, tiny, lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2, self.weight_decay = lr, beta1, beta2, weight_decay
        self.m = np.zeros(shape)

    def step(self, g, x=0.0):
        self.t += 1
        c = self.beta1 * self.m + (1 - self.beta1) * g
        self.m = store(self.beta2 * self.m + (1 - self.beta2) * g, self.tiny)
        return -self.lr * (np.sign(c) + self.weight_decay * x)


class Rprop:
    """Igel & Huesken 2003, iRprop-, one coordinate after the other as it is printed."""

    def __init__(self, shape, tiny, lr=1e-2, eta_minus=0.5, eta_plus=1.2, min_rate=1e-6, max_rate=50.0):
        self.t, self.tiny = 0, tiny
        self.eta_minus, self.eta_plus, self.min_rate, self.max_rate = eta_minus, eta_plus, min_rate, max_rate
        self.last = np.zeros(shape)
        self.rate = np.full(shape, lr)

    def step(self, g):
        self.t += 1
        g, rate = np.array(g, np.float64), self.rate.copy()
        delta = np.zeros(g.shape)
        for i in np.ndindex(g.shape):
            signs = np.sign(self.last[i]) * np.sign(g[i])
            if signs > 0:
                rate[i] = min(rate[i] * self.eta_plus, self.max_rate)
            elif signs < 0:
                rate[i] = max(rate[i] * self.eta_minus, self.min_rate)
                g[i] = 0
            delta[i] = -np.sign(g[i]) * rate[i]
        self.last, self.rate = store(g, self.tiny), store(rate, self.tiny)
        return delta


class AMSGrad:
    """Reddi et al. 2018, algorithm 2, with the correction of Kingma & Ba that its text mentions."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.v = np.full(shape, eps)
        self.v_max = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        v_max = np.maximum(self.v_max, v)
        self.m, self.v, self.v_max = store(m, self.tiny), store(v, self.tiny), store(v_max, self.tiny)
        m_hat = m / (1 - self.beta1**self.t)
        return -self.lr * m_hat * np.sqrt(1 - self.beta2**self.t) / root(v_max, self.tiny)


class AdaBelief:
    """Zhuang et al. 2020, algorithm 2, with s started at eps in place of eps added."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-16):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.s = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        s = self.beta2 * self.s + (1 - self.beta2) * (g - m) ** 2
        self.m, self.s = store(m, self.tiny), store(s, self.tiny)
        m_hat = m / (1 - self.beta1**self.t)
        return -self.lr * m_hat * np.sqrt(1 - self.beta2**self.t) / root(s, self.tiny)


class RAdam:
    """Liu et al. 2020, algorithm 2."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.m = np.zeros(shape)
        self.v = np.full(shape, eps)

    def step(self, g):
        self.t += 1
        t, lr, beta2 = self.t, self.lr, self.beta2
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = beta2 * self.v + (1 - beta2) * g**2
        self.m, self.v = store(m, self.tiny), store(v, self.tiny)
        m_hat = m / (1 - self.beta1**t)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        if length <= 4:
            return -lr * m_hat
        adaptive = np.sqrt(1 - beta2**t) / root(v, self.tiny)
        r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        return -lr * r * m_hat * adaptive


class AdEMAMix:
    """Pagliardini et al. 2024, algorithm 1 and the two schedulers below it, as printed."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, beta3=0.9999, alpha=5.0, alpha_warmup=0.0,
                 beta3_warmup=0.0, eps=1e-8, weight_decay=0.0):  # fmt: skip
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2, self.beta3 = lr, beta1, beta2, beta3
        self.alpha, self.alpha_warmup, self.beta3_warmup = alpha, alpha_warmup, beta3_warmup
        self.weight_decay = weight_decay
        self.m1 = np.zeros(shape)
        self.m2 = np.zeros(shape)
        self.v = np.full(shape, eps)

    def scheduled_alpha(self):
        return min(self.t * self.alpha / self.alpha_warmup, self.alpha) if self.alpha_warmup else self.alpha

    def scheduled_beta3(self):
        if self.t >= self.beta3_warmup:
            return self.beta3
        start, end, done = math.log(self.beta1), math.log(self.beta3), self.t / self.beta3_warmup
        return min(math.exp(start * end / ((1 - done) * end + done * start)), self.beta3)

    def step(self, g, x=0.0):
        self.t += 1
        beta3 = self.scheduled_beta3()
        m1 = self.beta1 * self.m1 + (1 - self.beta1) * g
        m2 = beta3 * self.m2 + (1 - beta3) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        self.m1, self.m2, self.v = store(m1, self.tiny), store(m2, self.tiny), store(v, self.tiny)
        mixed = m1 / (1 - self.beta1**self.t) + self.scheduled_alpha() * m2
        root_of_v_hat = root(v, self.tiny) / np.sqrt(1 - self.beta2**self.t)
        return -self.lr * (mixed / root_of_v_hat + self.weight_decay * x)


TRANSCRIPTIONS = {
    "SGD": SGD,
    "Momentum": Momentum,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RMSProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
    "AdaMax": AdaMax,
    "Nadam": Nadam,
    "NadaMax": NadaMax,
    "AdamW": AdamW,
    "NadamW": NadamW,
    "Lion": Lion,
    "Rprop": Rprop,
    "AMSGrad": AMSGrad,
    "AdaBelief": AdaBelief,
    "RAdam": RAdam,
    "AdEMAMix": AdEMAMix,
}

SLOTS = {
    "SGD": (),
    "Momentum": ("velocity",),
    "Nesterov": ("velocity",),
    "AdaGrad": ("v",),
    "RMSProp": ("v",),
    "AdaDelta": ("v", "d"),
    "Adam": ("m", "v"),
    "AdaMax": ("m", "u"),
    "Nadam": ("m", "v"),
    "NadaMax": ("m", "u"),
    "AdamW": ("m", "v"),
    "NadamW": ("m", "v"),
    "Lion": ("m",),
    "Rprop": ("last", "rate"),
    "AMSGrad": ("m", "v", "v_max"),
    "AdaBelief": ("m", "s"),
    "RAdam": ("m", "v"),
    "AdEMAMix": ("m1", "m2", "v"),
}
