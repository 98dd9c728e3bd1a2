"""Those beyond the ten, plainly, as their papers print them (see reference_formulas.py)."""

from __future__ import annotations

import math

import numpy as np

from reference_ten import root, store


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


class Adan:
    """Xie et al. 2022, algorithm 1, with the paper's own betas, 1 minus ours, and moments corrected as Adam's are."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, weight_decay=0.0):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2, self.beta3 = lr, 1 - beta1, 1 - beta2, 1 - beta3
        self.weight_decay = weight_decay
        self.m = np.zeros(shape)
        self.v = np.zeros(shape)
        self.n = np.full(shape, eps)
        self.last = None

    def step(self, g, x=0.0):
        self.t += 1
        last = g if self.last is None else self.last
        m = (1 - self.beta1) * self.m + self.beta1 * g
        v = (1 - self.beta2) * self.v + self.beta2 * (g - last)
        n = (1 - self.beta3) * self.n + self.beta3 * (g + (1 - self.beta2) * (g - last)) ** 2
        self.m, self.v, self.n, self.last = (store(a, self.tiny) for a in (m, v, n, g))
        m_hat, v_hat = m / (1 - (1 - self.beta1) ** self.t), v / (1 - (1 - self.beta2) ** self.t)
        rate = self.lr * np.sqrt(1 - (1 - self.beta3) ** self.t) / root(n, self.tiny)
        step = rate * (m_hat + (1 - self.beta2) * v_hat)
        return -(step + self.lr * self.weight_decay * x) / (1 + self.lr * self.weight_decay)


def length(a):
    """The norm of a leaf, by hand; of a number, that of an array of it."""
    return math.sqrt(math.fsum(float(e) ** 2 for e in np.ravel(a)))


class LARS:
    """You et al. 2017, algorithm 1; lr alone where a norm is 0."""

    def __init__(self, shape, tiny, lr=1.0, momentum=0.9, trust=1e-3, weight_decay=0.0):
        self.t, self.tiny = 0, tiny
        self.lr, self.momentum, self.trust, self.weight_decay = lr, momentum, trust, weight_decay
        self.velocity = np.zeros(shape)

    def step(self, g, x=0.0):
        self.t += 1
        below = length(g) + self.weight_decay * length(x)
        rate = self.trust * length(x) / below if length(x) > 0 and below > 0 else 1.0
        velocity = self.momentum * self.velocity - self.lr * rate * (g + self.weight_decay * x)
        self.velocity = store(velocity, self.tiny)
        return velocity


class LAMB:
    """You et al. 2020, algorithm 2, with phi the identity; the ratio is 1 where a norm is 0."""

    def __init__(self, shape, tiny, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        self.t, self.tiny = 0, tiny
        self.lr, self.beta1, self.beta2, self.weight_decay = lr, beta1, beta2, weight_decay
        self.m = np.zeros(shape)
        self.v = np.full(shape, eps)

    def step(self, g, x=0.0):
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        self.m, self.v = store(m, self.tiny), store(v, self.tiny)
        m_hat = m / (1 - self.beta1**self.t)
        r = m_hat * np.sqrt(1 - self.beta2**self.t) / root(v, self.tiny) + self.weight_decay * x
        ratio = length(x) / length(r) if length(x) > 0 and length(r) > 0 else 1.0
        return -self.lr * ratio * r


class ScheduleFreeSGD:
    """Defazio et al. 2024, equations 3 to 5, x found from y and z; weighed as in the authors' code."""

    def __init__(self, shape, tiny, lr=1.0, beta=0.9):
        self.t, self.tiny, self.shape = 0, tiny, shape
        self.lr, self.beta = lr, beta
        self.z = None
        self.weight = self.peak = 0.0

    def mean(self, y):
        return (y - (1 - self.beta) * self.z) / self.beta if self.z is not None else y

    def step(self, g, x=0.0):
        self.t += 1
        y = np.broadcast_to(np.asarray(x, np.float64), self.shape)
        self.z = y if self.z is None else self.z
        mean = self.mean(y)
        z = self.z - self.lr * self.direction(g, y)
        self.peak = max(self.peak, self.lr)
        self.weight += self.peak**2
        c = self.peak**2 / self.weight if self.weight > 0 else 0.0
        mean = (1 - c) * mean + c * z
        self.z = store(z, self.tiny)
        return (1 - self.beta) * z + self.beta * mean - y

    def direction(self, g, y):
        return g


class ScheduleFreeAdamW(ScheduleFreeSGD):
    """The same paper's algorithm 1."""

    def __init__(self, shape, tiny, lr=2.5e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        super().__init__(shape, tiny, lr, beta1)
        self.beta2, self.weight_decay = beta2, weight_decay
        self.v = np.full(shape, eps)

    def direction(self, g, y):
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        self.v = store(v, self.tiny)
        return g * np.sqrt(1 - self.beta2**self.t) / root(v, self.tiny) + self.weight_decay * y


class Prodigy:
    """Mishchenko & Defazio 2024, algorithm 4, over the powers of d0 that the state is kept in."""

    def __init__(self, shape, tiny, lr=1.0, beta1=0.9, beta2=0.999, eps=1e-8, d0=1e-6, d_coef=1.0, weight_decay=0.0):
        self.t, self.tiny, self.shape = 0, tiny, shape
        self.lr, self.beta1, self.beta2, self.d0, self.d_coef = lr, beta1, beta2, d0, d_coef
        self.weight_decay = weight_decay
        self.m, self.s, self.v = np.zeros(shape), np.zeros(shape), np.full(shape, eps)
        self.x0, self.r, self.d = None, 0.0, d0

    def step(self, g, x=0.0):
        self.t += 1
        x = np.broadcast_to(np.asarray(x, np.float64), self.shape)
        self.x0 = x if self.x0 is None else self.x0
        dg, forget = self.d / self.d0 * g, 1 - math.sqrt(self.beta2)
        m = self.beta1 * self.m + (1 - self.beta1) * dg
        v = self.beta2 * self.v + (1 - self.beta2) * dg**2
        inner = math.fsum(np.ravel(self.d / self.d0 * dg * (self.x0 - x)))
        self.r = math.sqrt(self.beta2) * self.r + forget * self.lr * inner
        s = math.sqrt(self.beta2) * self.s + forget * self.lr * self.d / self.d0 * dg
        self.m, self.v, self.s = store(m, self.tiny), store(v, self.tiny), store(s, self.tiny)
        step = -self.lr * self.d * (m / root(v, self.tiny) + self.weight_decay * x)
        if np.any(s):
            self.d = max(self.d, self.d_coef * self.r / math.fsum(np.ravel(np.abs(s))))
        return step


class Muon:
    """Jordan et al. 2024 with the factor of Liu et al. 2025, for a matrix; AdamW for anything else.

    A step of the iteration acts on singular values alone, so here they are taken apart instead.
    """

    def __init__(self, shape, tiny, lr=1e-3, momentum=0.95, weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.999,
                 adam_eps=1e-8):  # fmt: skip
        self.t, self.tiny = 0, tiny
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.adamw = AdamW(shape, tiny, lr, adam_beta1, adam_beta2, adam_eps, weight_decay)
        self.sums = np.zeros(shape)

    def step(self, g, x=0.0):
        if g.ndim != 2:
            return self.adamw.step(g, x)
        self.sums = self.momentum * self.sums + g
        ahead = g + self.momentum * self.sums
        left, s, right = np.linalg.svd(ahead, full_matrices=False)
        s = s / np.sqrt(np.sum(s**2)) if s.any() else s
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        return -self.lr * (0.2 * np.sqrt(max(g.shape)) * (left * s) @ right + self.weight_decay * x)

    @property
    def m(self):
        return (1 - self.momentum) * self.sums if self.adamw.t == 0 else self.adamw.m

    @property
    def v(self):
        return np.zeros(0) if self.adamw.t == 0 else self.adamw.v


class Adafactor:
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors), with the sums that they print."""

    def __init__(self, shape, tiny, lr=1e-2, decay_rate=0.8, threshold=1.0, eps1=1e-30, eps2=1e-3):
        self.t, self.tiny = 0, tiny
        self.lr, self.decay_rate, self.threshold, self.eps1, self.eps2 = lr, decay_rate, threshold, eps1, eps2
        self.sums, self.row_sums, self.column_sums = 0.0, 0.0, 0.0

    def step(self, g, x=0.0):
        self.t += 1
        alpha = max(self.eps2, np.sqrt(np.mean((x + 0 * g) ** 2))) * min(self.lr, 1 / np.sqrt(self.t))
        beta2 = 1 - self.t**-self.decay_rate
        if g.ndim == 2:
            ones_n, ones_m = np.ones(g.shape[0]), np.ones(g.shape[1])
            self.row_sums = beta2 * self.row_sums + (1 - beta2) * (g**2 + self.eps1) @ ones_m
            self.column_sums = beta2 * self.column_sums + (1 - beta2) * ones_n @ (g**2 + self.eps1)
            v = np.outer(self.row_sums, self.column_sums) / max(ones_n @ self.row_sums, self.tiny)
        else:
            v = self.sums = beta2 * self.sums + (1 - beta2) * (g**2 + self.eps1)
        u = g / root(v, self.tiny)
        return -alpha * u / max(1, np.sqrt(np.mean(u**2)) / self.threshold)
