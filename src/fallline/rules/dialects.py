"""Formulas as other libraries have them, where they differ from the house's: what `fallline.dialects` is made of.

Each is called by the library in which it was read first, though others may share it. Where a library adds ε to a root,
the root is `root`, so that 0 is divided by what is not 0 where ε is 0: nothing else differs. Weight decay, clipping and
climbing are modifiers in all dialects, as everywhere.

Sources: torch 2.13, torch/optim/*.py, _single_tensor_*; Keras 3.15, keras/src/optimizers/*.py, update_step; optax
0.2.8, optax/_src/transform.py; TensorFlow 1, tensorflow/core/kernels/training_ops.cc.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fallline._formula.ranges import NonPositive
from fallline._formula.rule import Fraction, NonNegative, Positive, after, before, rule, scalar, shaped
from fallline._formula.words import abs, maximum, minimum, norm, root, sign, sqrt, tiny, where
from fallline.rules.further import trust_ratio
from fallline.rules.matrices import mean, orthogonal, rms, unless_factored


def with_rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], 1) if len(shape) >= 2 else (0,)


def with_columns(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], 1, shape[-1]) if len(shape) >= 2 else (0,)


def moments(g: Any, m: Any, v: Any, beta1: Any, beta2: Any) -> tuple[Any, Any]:
    """The averages of gradients and of their squares, from 0 on."""
    return beta1*m + (1 - beta1)*g, beta2*v + (1 - beta2)*g*g


# ---- torch -----------------------------------------------------------------------------------------------------------


@rule
def torch_sgd(g, t, b=0, *, lr: NonNegative = 1e-3, momentum: NonNegative = 0.0, dampening: float = 0.0):
    """SGD with a buffer that lr is not part of: it scales what the buffer has come to. The first buffer is g."""
    b = where(t == 1, g, momentum*b + (1 - dampening)*g)
    return -lr*where(momentum > 0, b, g), b


@rule
def torch_nesterov(g, t, b=0, *, lr: NonNegative = 1e-3, momentum: NonNegative = 0.0, dampening: float = 0.0):
    """torch's SGD with Nesterov's look-ahead: g + momentum·b in the place of b."""
    b = where(t == 1, g, momentum*b + (1 - dampening)*g)
    return -lr*(g + momentum*b), b


@rule
def torch_asgd(g, x, t, ax=0, rate=scalar("lr", over="leaf"), *, lr: NonNegative = 1e-2, lambd: NonNegative = 1e-4,
               alpha: float = 0.75, t0: float = 1e6):
    """ASGD: SGD with decay at a rate that falls, and an average of the points from t0 on.

    The rate of a step is made of the lr that the step before had; ax is the average, which `step` does not step.
    """
    d = -lambd*rate*x - rate*g
    share = 1/maximum(1, t - 1 - t0)
    return d, where(share == 1, x + d, ax + share*(x + d - ax)), lr/(1 + lambd*lr*t)**alpha


@rule
def torch_adagrad(g, t, s="initial", *, lr: NonNegative = 1e-2, lr_decay: NonNegative = 0.0,
                  initial: NonNegative = 0.0, eps: NonNegative = 1e-10):
    """AdaGrad with ε beside the root, and lr over 1 + (t - 1)·lr_decay."""
    s = s + g*g
    return -lr/(1 + (t - 1)*lr_decay)*(g/(root(s) + eps)), s


@rule
def torch_adadelta(g, v=0, u=0, *, lr: NonNegative = 1.0, rho: Fraction = 0.9, eps: NonNegative = 1e-6):
    """AdaDelta as Zeiler has it, with ε added each time, times an lr."""
    v = rho*v + (1 - rho)*g*g
    d = sqrt(u + eps)/root(v + eps)*g
    return -lr*d, v, rho*u + (1 - rho)*d*d


@rule
def torch_rmsprop(g, v=0, b=0, *, lr: NonNegative = 1e-2, rho: Fraction = 0.99, eps: NonNegative = 1e-8,
                  momentum: NonNegative = 0.0):
    """RMSProp with ε beside the root, and a buffer of quotients that lr is not part of."""
    v = rho*v + (1 - rho)*g*g
    b = momentum*b + g/(root(v) + eps)
    return -lr*b, v, b


@rule
def torch_rmsprop_centered(g, v=0, a=0, b=0, *, lr: NonNegative = 1e-2, rho: Fraction = 0.99, eps: NonNegative = 1e-8,
                           momentum: NonNegative = 0.0):
    """torch's RMSProp by the variance of gradients, which rounding must not leave below 0."""
    v = rho*v + (1 - rho)*g*g
    a = rho*a + (1 - rho)*g
    b = momentum*b + g/(root(maximum(v - a*a, 0)) + eps)
    return -lr*b, v, a, b


@rule
def torch_adam(g, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
               eps: NonNegative = 1e-8):
    """Adam as its paper prints it: ε beside the root of the corrected v."""
    m, v = moments(g, m, v, beta1, beta2)
    return -lr/(1 - beta1**t)*(m/(root(v)/sqrt(1 - beta2**t) + eps)), m, v


@rule
def torch_amsgrad(g, t, m=0, v=0, v_max=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                  eps: NonNegative = 1e-8):
    """torch's Adam by the largest v so far, as it is."""
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v)
    return -lr/(1 - beta1**t)*(m/(root(v_max)/sqrt(1 - beta2**t) + eps)), m, v, v_max


@rule
def torch_adamax(g, t, m=0, u=0, *, lr: NonNegative = 2e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                 eps: NonNegative = 1e-8):
    """AdaMax with ε added to |g|."""
    m = beta1*m + (1 - beta1)*g
    u = maximum(beta2*u, abs(g) + eps)
    return -lr/(1 - beta1**t)*(m/maximum(u, tiny(u))), m, u


@rule
def torch_nadam(g, t, m=0, v=0, product=scalar(1, over="leaf"), *, lr: NonNegative = 2e-3, beta1: Fraction = 0.9,
                beta2: Fraction = 0.999, eps: NonNegative = 1e-8, momentum_decay: NonNegative = 4e-3):
    """Nadam as Dozat has it: beta1 grows over the run, and the product of all so far corrects the moment.

    Keras' is the same with a momentum_decay of 1. torch has that product in float32.
    """
    mu = beta1*(1 - 0.5*0.96**(t*momentum_decay))
    mu_next = beta1*(1 - 0.5*0.96**((t + 1)*momentum_decay))
    product = product*mu
    m, v = moments(g, m, v, beta1, beta2)
    ahead = mu_next/(1 - product*mu_next)*m + (1 - mu)/(1 - product)*g
    return -lr*(ahead/(root(v/(1 - beta2**t)) + eps)), m, v, product


@rule
def torch_radam(g, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                eps: NonNegative = 1e-8):
    """RAdam with ε beside the root of v, rectified where the length of the average is above 5 (the paper: 4)."""
    m, v = moments(g, m, v, beta1, beta2)
    ρ_inf = 2/(1 - beta2) - 1
    ρ = ρ_inf - 2*t*beta2**t/(1 - beta2**t)
    r = sqrt(maximum((ρ - 4)*(ρ - 2)*ρ_inf/((ρ_inf - 4)*(ρ_inf - 2)*ρ), 0)*(1 - beta2**t))
    return -lr/(1 - beta1**t)*where(ρ > 5, r*(m/(root(v) + eps)), m), m, v


@before
def averaged(g, m=0, *, momentum: NonNegative = 0.95):
    """The average of gradients in the place of the gradient, as torch's Muon has it."""
    m = m + (1 - momentum)*(g - m)
    return m, m


@before
def averaged_ahead(g, m=0, *, momentum: NonNegative = 0.95):
    """The same with Nesterov's look-ahead."""
    m = m + (1 - momentum)*(g - m)
    return g + momentum*(m - g), m


def torch_orthogonal(g: np.ndarray, *settings: float) -> np.ndarray:
    """A matrix made orthogonal, with Newton and Schulz's coefficients a, b and c, their eps and their steps."""
    a, b, c, eps, steps = settings
    if g.ndim != 2:
        raise ValueError(f"torch's Muon steps matrices alone, and a leaf of shape {g.shape} is none: give it another "
                         "optimizer by fallline.partition, or take fallline.Muon, which steps such leaves by AdamW.")
    return orthogonal(g, (float(a), float(b), float(c)), int(steps), float(eps))


@rule(whole_leaf=True)
def torch_muon(g, *, lr: NonNegative = 1e-3, a: float = 3.4445, b: float = -4.7750, c: float = 2.0315,
               eps: NonNegative = 1e-7, steps: NonNegative = 5):
    """Muon at Jordan's size: √(rows/columns) where that is above 1. torch makes matrices orthogonal in bfloat16."""
    return -lr*sqrt(max(1, g.shape[0]/max(g.shape[-1], 1)))*torch_orthogonal(g, a, b, c, eps, steps)


@rule(whole_leaf=True)
def torch_muon_rms(g, *, lr: NonNegative = 1e-3, a: float = 3.4445, b: float = -4.7750, c: float = 2.0315,
                   eps: NonNegative = 1e-7, steps: NonNegative = 5):
    """torch's Muon at Moonshot's size, "match_rms_adamw": 0.2·√max(rows, columns)."""
    return -lr*0.2*sqrt(max(g.shape))*torch_orthogonal(g, a, b, c, eps, steps)


@rule(whole_leaf=True)
def torch_adafactor(g, x, t, v=shaped(0, unless_factored), row=shaped(0, with_rows), col=shaped(0, with_columns), *,
                    lr: NonNegative = 1e-2, beta2_decay: NonPositive = -0.8, eps1: NonNegative = 1e-8,
                    eps2: NonNegative = 1e-3, d: Positive = 1.0):
    """Adafactor whose ε bounds the mean of the rows, and its square the second moment, from below."""
    share = t**beta2_decay
    if g.ndim < 2:
        v = v + share*(g*g - v)
        estimate = v
    else:
        row = row + share*(mean(g*g, -1) - row)
        col = col + share*(mean(g*g, -2) - col)
        estimate = row*col/maximum(mean(row, -2), maximum(eps1, tiny(row)))
    u = g/root(maximum(estimate, eps1*eps1))
    u = u/maximum(1, rms(u)/d)
    return -maximum(eps2, rms(x))*minimum(lr, 1/sqrt(t))*u, v, row, col


@rule(whole_leaf=True)
def torch_adafactor_usual(g, x, t, v=shaped(0, unless_factored), row=shaped(0, with_rows),
                          col=shaped(0, with_columns), *, lr: NonNegative = 1e-2, beta2_decay: NonPositive = -0.8,
                          eps2: NonNegative = 1e-3, d: Positive = 1.0):
    """torch's Adafactor whose ε is that of the dtype."""
    return torch_adafactor.formula(g, x, t, v, row, col, lr=lr, beta2_decay=beta2_decay, eps1=np.finfo(g.dtype).eps,
                                   eps2=eps2, d=d)


# ---- Keras, whose first three optax shares ---------------------------------------------------------------------------


@rule
def keras_adagrad(g, s="initial", *, lr: NonNegative = 1e-3, initial: NonNegative = 0.1, eps: NonNegative = 1e-7):
    """AdaGrad with ε within the root."""
    s = s + g*g
    return -lr*(g/root(s + eps)), s


@rule
def keras_rmsprop(g, v="initial", *, lr: NonNegative = 1e-3, rho: Fraction = 0.9, initial: NonNegative = 0.0,
                  eps: NonNegative = 1e-7):
    """RMSProp with ε within the root. TensorFlow 1 has v start at 1."""
    v = rho*v + (1 - rho)*g*g
    return -lr*(g/root(v + eps)), v


@rule
def keras_rmsprop_centered(g, v="initial", a=0, *, lr: NonNegative = 1e-3, rho: Fraction = 0.9,
                           initial: NonNegative = 0.0, eps: NonNegative = 1e-7):
    """Keras' RMSProp by the variance of gradients, which rounding must not leave below 0."""
    v = rho*v + (1 - rho)*g*g
    a = rho*a + (1 - rho)*g
    return -lr*(g/root(maximum(v - a*a, 0) + eps)), v, a


@after
def trace(d, b=0, *, momentum: NonNegative = 0.9):
    """Momentum of the increments, lr and all: what Keras' and TensorFlow's RMSProp call momentum, optax a trace."""
    b = momentum*b + d
    return b, b


@after
def nesterov_trace(d, b=0, *, momentum: NonNegative = 0.9):
    """The same with Nesterov's look-ahead."""
    b = momentum*b + d
    return d + momentum*b, b


@rule
def keras_adam(g, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
               eps: NonNegative = 1e-7):
    """Adam in the order of its paper's remark, with ε beside the root of v as it is ("epsilon hat")."""
    m, v = moments(g, m, v, beta1, beta2)
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*(m/(root(v) + eps)), m, v


@rule
def keras_amsgrad(g, t, m=0, v=0, v_max=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                  eps: NonNegative = 1e-7):
    """Keras' Adam by the largest v so far, as it is."""
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v)
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*(m/(root(v_max) + eps)), m, v, v_max


@rule
def keras_adamax(g, t, m=0, u=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                 eps: NonNegative = 1e-7):
    """AdaMax with ε added to u."""
    m = beta1*m + (1 - beta1)*g
    u = maximum(beta2*u, abs(g))
    return -lr/(1 - beta1**t)*(m/maximum(u + eps, tiny(u))), m, u


@rule
def keras_lamb(g, x, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
               eps: NonNegative = 1e-7, weight_decay: NonNegative = 0.0):
    """LAMB whose ratio is of the parameter, decayed before, to Adam's step."""
    m, v = moments(g, m, v, beta1, beta2)
    u = m/(1 - beta1**t)/(root(v/(1 - beta2**t)) + eps)
    ratio = trust_ratio(norm(x - lr*weight_decay*x, over="leaf"), norm(u, over="leaf"), x)
    return -lr*(ratio*u) - lr*weight_decay*x, m, v


def proximal(g: Any, x: Any, z: Any, before: Any, now: Any, *, lr: Any, l1: Any, l2: Any, shrinkage: Any, beta: Any,
             weight_decay: Any) -> tuple[Any, Any]:
    """FTRL-Proximal's step and z, where 1/lr is multiplied by what the sum of squares was before, and is now."""
    old = x - lr*weight_decay*x
    z = z + g + 2*shrinkage*old - (now - before)/lr*old
    return (minimum(maximum(z, -l1), l1) - z)/(now/lr + 2*(l2 + beta/(2*lr))) - x, z


@rule
def keras_ftrl(g, x, n="initial", z=0, *, lr: Positive = 1e-3, initial: NonNegative = 0.1, l1: NonNegative = 0.0,
               l2: NonNegative = 0.0, shrinkage: NonNegative = 0.0, beta: NonNegative = 0.0,
               weight_decay: NonNegative = 0.0):
    """FTRL-Proximal, of the power -1/2: where |z| is at most l1 the parameter is 0. It decays before it is read.

    Source: McMahan et al. 2013, Ad click prediction: a view from the trenches, algorithm 1, with Keras' shrinkage.
    """
    more = n + g*g
    d, z = proximal(g, x, z, root(n), root(more), lr=lr, l1=l1, l2=l2, shrinkage=shrinkage, beta=beta,
                    weight_decay=weight_decay)
    return d, more, z


@rule(whole_leaf=True)
def keras_ftrl_power(g, x, n="initial", z=0, *, lr: Positive = 1e-3, power: float = -0.5, initial: NonNegative = 0.1,
                     l1: NonNegative = 0.0, l2: NonNegative = 0.0, shrinkage: NonNegative = 0.0,
                     beta: NonNegative = 0.0, weight_decay: NonNegative = 0.0):
    """FTRL-Proximal of another power than -1/2, which is NumPy's: it may differ in the last bits by machine."""
    more = n + g*g
    before, now = (maximum(total, tiny(g))**-power for total in (n, more))
    d, z = proximal(g, x, z, before, now, lr=lr, l1=l1, l2=l2, shrinkage=shrinkage, beta=beta,
                    weight_decay=weight_decay)
    return d, more, z


@before
def clip_leaf_norms(g, *, max_norm: Positive = 1.0):
    """Shorten the gradient of each leaf to max_norm where it is longer: Keras' clipnorm."""
    return g*(max_norm/maximum(norm(g, over="leaf"), max_norm))


# ---- optax -----------------------------------------------------------------------------------------------------------


@rule
def optax_adam(g, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
               eps: NonNegative = 1e-8, eps_root: NonNegative = 0.0):
    """Adam as its paper prints it, with another ε within the root."""
    m, v = moments(g, m, v, beta1, beta2)
    return -lr*(m/(1 - beta1**t)/(root(v/(1 - beta2**t) + eps_root) + eps)), m, v


@rule
def optax_nadam(g, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                eps: NonNegative = 1e-8, eps_root: NonNegative = 0.0):
    """Nadam without a schedule for beta1, whose new moment is corrected by 1 - beta1ᵗ⁺¹."""
    m, v = moments(g, m, v, beta1, beta2)
    ahead = beta1*(m/(1 - beta1**(t + 1))) + (1 - beta1)*(g/(1 - beta1**t))
    return -lr*(ahead/(root(v/(1 - beta2**t) + eps_root) + eps)), m, v


@rule
def optax_amsgrad(g, t, m=0, v=0, v_max=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                  eps: NonNegative = 1e-8, eps_root: NonNegative = 0.0):
    """Adam by the largest corrected v so far."""
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v/(1 - beta2**t))
    return -lr*(m/(1 - beta1**t)/(root(v_max + eps_root) + eps)), m, v, v_max


@rule
def optax_radam(g, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                eps: NonNegative = 1e-8, eps_root: NonNegative = 0.0, threshold: float = 5.0):
    """RAdam with ε beside the root of the corrected v, and a threshold of one's own."""
    m, v = moments(g, m, v, beta1, beta2)
    ρ_inf = 2/(1 - beta2) - 1
    ρ = ρ_inf - 2*t*beta2**t/(1 - beta2**t)
    r = sqrt(maximum((ρ - 4)*(ρ - 2)*ρ_inf/((ρ_inf - 4)*(ρ_inf - 2)*ρ), 0))
    ahead = m/(1 - beta1**t)
    return -lr*where(ρ >= threshold, r*ahead/(root(v/(1 - beta2**t) + eps_root) + eps), ahead), m, v


@rule
def optax_lamb(g, x, t, m=0, v=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
               eps: NonNegative = 1e-6, eps_root: NonNegative = 0.0, weight_decay: NonNegative = 0.0):
    """LAMB whose ratio is of the parameter to Adam's step with its decay."""
    d, m, v = optax_adam.formula(g, t, m, v, lr=1, beta1=beta1, beta2=beta2, eps=eps, eps_root=eps_root)
    d = d - weight_decay*x
    return lr*(trust_ratio(norm(x, over="leaf"), norm(d, over="leaf"), x)*d), m, v


@rule
def optax_yogi(g, t, m=1e-6, v=1e-6, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
               eps: NonNegative = 1e-3):
    """Yogi: v moves towards g² by a share of g², and not of the distance.

    Source: Zaheer et al. 2018, Adaptive methods for nonconvex optimization; both moments start at 1e-6.
    """
    m = beta1*m + (1 - beta1)*g
    v = v - (1 - beta2)*sign(v - g*g)*g*g
    return -lr*(m/(1 - beta1**t)/(root(v/(1 - beta2**t)) + eps)), m, v


@rule
def optax_adabelief(g, t, m=0, s=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
                    eps: NonNegative = 1e-16, eps_root: NonNegative = 1e-16):
    """AdaBelief with an ε added to s at every step, and another beside the root."""
    m = beta1*m + (1 - beta1)*g
    s = beta2*s + (1 - beta2)*(g - m)*(g - m) + eps_root
    return -lr*(m/(1 - beta1**t)/(root(s/(1 - beta2**t)) + eps)), m, s


@rule
def optax_novograd(g, x, t, m=0, v=scalar(0, over="leaf"), *, lr: NonNegative = 1e-3, beta1: NonNegative = 0.9,
                   beta2: Fraction = 0.25, eps: NonNegative = 1e-6, eps_root: NonNegative = 0.0,
                   weight_decay: NonNegative = 0.0):
    """NovoGrad: gradients divided by the norm of their leaf, averaged; the first average of norms is the first.

    Source: Ginsburg et al. 2019, Stochastic gradient methods with layer-wise adaptive moments, arXiv 1905.11286.
    """
    square = norm(g, over="leaf")*norm(g, over="leaf")
    v = where(t == 1, square, beta2*v + (1 - beta2)*square)
    m = beta1*m + g/maximum(sqrt(v + eps_root) + eps, tiny(g)) + weight_decay*x
    return -lr*m, m, v
