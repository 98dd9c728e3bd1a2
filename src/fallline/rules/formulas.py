"""The ten, in order of increasing complexity.

Symbols: g gradient, x parameter, d increment, t step number from 1; `velocity`; `m` first moment; `v` second moment;
`u` infinity norm. All operations are element by element. Textbooks add ε to a denominator at every step; here, as in
the article these come from, the accumulator starts at ε and the division is by √v, which `root` keeps from being 0.
ε fades as gradients come in (v ≥ β²ᵗε), so it is not the same protection; for small gradients set eps=0. Where beta2 is
so small that v (or u) fades sooner than m, m/√v would grow without end once gradients stop: it is kept below 10⁶.

Each formula reads as its source prints it. How fast it runs is the engines' business.
"""

from __future__ import annotations

from typing import Any

from fallline._formula.rule import Fraction, NonNegative, Positive, rule
from fallline._formula.words import abs, kept, maximum, root, sqrt

# ---- points other than the one that is stepped -----------------------------------------------------------------------


def looked_ahead(x: Any, velocity: Any, *, momentum: Any) -> Any:
    """Where Momentum is heading: the point at which Nesterov takes the gradient."""
    return x + momentum*velocity


def at_rest(x: Any, velocity: Any, *, momentum: Any) -> Any:
    """Nesterov's θ, given the looked-ahead point x that `step` updates."""
    return x - momentum*velocity


def mean_point(x: Any, z: Any, *, beta: Any) -> Any:
    """Schedule-Free's x, given the point y = (1 - beta)·z + beta·x that `step` updates, here called x as elsewhere."""
    return x + (1 - 1/beta)*(z - x)


# ---- rules: gradient -> increment ------------------------------------------------------------------------------------


@rule
def sgd(g, *, lr: NonNegative = 1e-3):
    """Stochastic gradient descent: a step against the gradient.

    With mini-batches, g is the mean of the gradients of the batch's samples. g can come from anywhere: backpropagation,
    an adjoint solver, a simulator.

    Source: Robbins & Monro 1951, A stochastic approximation method.
    """
    return -lr*g


@rule
def momentum(g, velocity=0, *, lr: NonNegative = 1e-3, momentum: Fraction = 0.9):
    """Momentum: a ball of mass 1 that rolls down the loss surface with viscous drag.

    The ball's change of momentum in unit time is the force on it: gravity along the slope, -lr·g, and drag -μ·velocity,
    with momentum = 1 - μ. Unrolled, velocity = -lr·Σ momentum^(t-i)·gᵢ, so under a constant gradient it tends to
    -lr·g/(1 - momentum). Keras, too, has lr inside the velocity; torch and optax multiply by it afterwards, which is
    the same until lr changes. Another convention averages: v ← α·v + (1-α)·g. That average starts at 0 and is biased
    towards it, which is why the Adam family corrects it.

    Source: Polyak 1964, Some methods of speeding up the convergence of iteration methods.
    """
    velocity = momentum*velocity - lr*g
    return velocity, velocity


@rule(rest=at_rest)
def nesterov(g, velocity=0, *, lr: NonNegative = 1e-3, momentum: Fraction = 0.9):
    """Nesterov's accelerated gradient: Momentum with the gradient taken at the look-ahead point.

    The array that `step` updates is that point, φ = θ + momentum·velocity, so an ordinary loop (gradient at the
    array, then `step`) is Nesterov's method, exactly for constant momentum; `rest(params)` returns θ. From
    θ = φ - momentum·velocity and θ ← θ + velocity follows Δφ = momentum·velocity - lr·g.

    Source: Nesterov 1983, A method for solving the convex programming problem with convergence rate O(1/k²); Sutskever
    et al. 2013, On the importance of initialization and momentum in deep learning.
    """
    velocity = momentum*velocity - lr*g
    return momentum*velocity - lr*g, velocity


@rule
def adagrad(g, v="eps", *, lr: NonNegative = 1e-3, eps: NonNegative = 1e-8):
    """AdaGrad: divides the rate of each coordinate by the root of the sum of its squared gradients.

    That sum only grows, so progress is quick at first and slows down later, which suits convex problems. torch starts
    it at 0, adds 1e-10 to the root and has lr 0.01 by default; Keras and optax start it at 0.1.

    Source: Duchi, Hazan & Singer 2011, Adaptive subgradient methods for online learning and stochastic optimization.
    """
    v = v + g*g
    return -lr*g/root(v), v


@rule
def rmsprop(g, v="eps", *, lr: NonNegative = 1e-3, rho: Fraction = 0.999, eps: NonNegative = 1e-8):
    """RMSProp: AdaGrad with a sum that forgets exponentially.

    Unrolled, v = (1-rho)·Σ rho^(t-i)·gᵢ² + rhoᵗ·eps: old gradients stop counting, which suits non-convex losses. v is
    not corrected for its start, so the first step is 31.6·lr at rho 0.999. The default of rho is Adam's beta2; the
    lecture, Keras and optax use 0.9, torch 0.99.

    Source: Tieleman & Hinton 2012, Neural networks for machine learning, lecture 6.5.
    """
    v = rho*v + (1 - rho)*g*g
    return -lr*g/root(v), v


@rule
def adadelta(g, v="eps", d="eps", *, rho: Fraction = 0.999, eps: Positive = 1e-8):
    """AdaDelta: the ratio of accumulated increments to accumulated gradients gives the rate its units, so it has no lr.

    In this form an increment is proportional to √eps, so eps is in effect a learning rate squared, and d has no floor:
    with N(0, 1) gradients, rho 0.95 and eps 1e-6 the rms step is 6e-4 after 1,000 steps and 1e-11 after 10,000, where
    Zeiler's form (eps added each time) stays at 3.4e-3. At rho 0.999, eps 1e-8 it is mild: 1 % below Zeiler's 3.1e-3
    after 10,000. After long runs of zero gradients (a few hundred at rho 0.9) a coordinate hardly moves again. torch
    and Keras multiply the step by an lr after all; its default is 1 in torch and 0.001 in Keras.

    Source: Zeiler 2012, ADADELTA: an adaptive learning rate method, arXiv 1212.5701, algorithm 1.
    """
    v = rho*v + (1 - rho)*g*g
    step = -sqrt(d)/root(v)*g
    return step, v, rho*d + (1 - rho)*step*step


@rule
def adam(g, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
         eps: NonNegative = 1e-8):
    """Adam (adaptive moment estimation): combines Momentum and RMSProp, both corrected for their start at 0.

    Dividing m by 1-beta1ᵗ and v by 1-beta2ᵗ removes the bias; the two corrections fold into the one scalar
    lr·√(1-beta2ᵗ)/(1-beta1ᵗ) and fade as t grows. eps stands inside the root and is not corrected: at step t it acts on
    |g| like √(beta2ᵗ·eps/(1-beta2ᵗ)), 3.2e-3 at t = 1 and 7.6e-5 at t = 1000. Compared with the textbook form, a
    constant g = 1e-2 gets 95 % of the first step, and g = 1e-6 covers 0.8 % of the distance in 1,000 steps. For small
    gradients set eps=0.

    Source: Kingma & Ba 2015, Adam: a method for stochastic optimization, arXiv 1412.6980, algorithm 1 in the order of
    the remark before section 2.1.
    """
    m = beta1*m + (1 - beta1)*g
    v = beta2*v + (1 - beta2)*g*g
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/root(v, m), m, v


@rule
def adamax(g, t, m=0, u=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999):
    """AdaMax: Adam with the infinity norm of past gradients in place of their 2-norm.

    Unrolled, Adam's v is a weighted 2-norm of all gradients of a coordinate; with p in place of 2 and p → ∞ it becomes
    u = max over i of beta2^(t-i)·|gᵢ|, the simple and stable member of that family. It is a maximum, not an average,
    and needs no correction. The default lr is 0.002 in the paper and torch, 0.001 in Keras and here.

    Source: Kingma & Ba 2015, Adam: a method for stochastic optimization, arXiv 1412.6980, algorithm 2.
    """
    m = beta1*m + (1 - beta1)*g
    u = maximum(beta2*u, abs(g))
    return -lr/(1 - beta1**t)*m/kept(u, m), m, u


@rule
def nadam(g, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
          eps: NonNegative = 1e-8):
    """Nadam: Adam with Nesterov's look-ahead.

    In m̂ = (beta1·mₜ₋₁ + (1-beta1)·g)/(1-beta1ᵗ) the old moment mₜ₋₁ is replaced by the new one, mₜ.
    Its first step is 1.9·lr. Dozat, torch and Keras let beta1 grow over the run; optax does not, but corrects the new
    moment by 1-beta1ᵗ⁺¹. These differences fade.

    Source: Dozat 2016, Incorporating Nesterov momentum into Adam (OpenReview OM0jvwB8jIp57ZJjtNEZ), with one β₁ for
    all t and 1-β₁ᵗ⁺¹ ≈ 1-β₁ᵗ, as Ruder's overview prints it.
    """
    m = beta1*m + (1 - beta1)*g
    v = beta2*v + (1 - beta2)*g*g
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*(beta1*m + (1 - beta1)*g)/root(v, m), m, v


@rule
def nadamax(g, t, m=0, u=0, *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999):
    """NadaMax: Nadam's step on AdaMax's norm.

    AdaMax divides m̂ = m/(1-beta1ᵗ) by u, the infinity norm of past gradients. Putting Nesterov's look-ahead into m̂ as
    Nadam does, beta1·mₜ + (1-beta1)·g in place of mₜ = beta1·mₜ₋₁ + (1-beta1)·g, gives this step. We know of no paper
    that prints it.

    Source: Kingma & Ba 2015, arXiv 1412.6980, algorithm 2, with the substitution of Dozat 2016.
    """
    m = beta1*m + (1 - beta1)*g
    u = maximum(beta2*u, abs(g))
    return -lr/(1 - beta1**t)*(beta1*m + (1 - beta1)*g)/kept(u, m), m, u
