"""Formulas beyond the ten, in order of increasing complexity; `formulas` says where ε stands."""

from __future__ import annotations

from typing import Annotated, Any

from fallline._formula.rule import Fraction, NonNegative, Positive, Range, rule, scalar
from fallline._formula.words import abs, exp, log, maximum, minimum, norm, root, sign, sqrt, tiny, total, where
from fallline.rules.formulas import adam, mean_point, nadam
from fallline.rules.modifiers import decayed

AtLeastOne = Annotated[float, Range("≥ 1", lambda v: v >= 1)]
Between = Annotated[float, Range("in (0, 1)", lambda v: 0 < v < 1)]


@rule
def adamw(g, x, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
          eps: NonNegative = 1e-8, weight_decay: NonNegative = 1e-2):
    """AdamW: Adam, with a weight decay that its moments do not see.

    Each step also shrinks the parameter by lr·weight_decay of itself. As a term of the gradient (`l2`) the decay would
    be divided by √v like the rest: least where gradients are large. The paper has only its schedule, not lr, in front
    of the decay; lr·weight_decay and the default 1e-2 are torch's. The same as chain(Adam(...), weight_decay(...)).

    Source: Loshchilov & Hutter 2019, Decoupled weight decay regularization, arXiv 1711.05101, algorithm 2.
    """
    d, m, v = adam.formula(g, t, m, v, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    return decayed(d, x, lr=lr, rate=weight_decay), m, v


@rule
def nadamw(g, x, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
           eps: NonNegative = 1e-8, weight_decay: NonNegative = 1e-2):
    """NadamW: Nadam, with a weight decay that its moments do not see.

    To Nadam what AdamW is to Adam: Nesterov's look-ahead, decoupled decay, AdamW's defaults.

    Source: Dozat 2016, with the decay of Loshchilov & Hutter 2019, arXiv 1711.05101; together in Dahl et al. 2023,
    Benchmarking neural network training algorithms, arXiv 2306.07179.
    """
    d, m, v = nadam.formula(g, t, m, v, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    return decayed(d, x, lr=lr, rate=weight_decay), m, v


@rule
def lion(g, x, m=0, *, lr: NonNegative = 1e-4, beta1: Fraction = 0.9, beta2: Fraction = 0.99,
         weight_decay: NonNegative = 0.0):
    """Lion (evolved sign momentum): only the sign of a momentum, so every coordinate steps by lr.

    beta1 weighs the gradient against the past in the step, beta2 in what is remembered. Every step being ±lr, lr wants
    to be 3 to 10 times smaller than AdamW's and weight_decay as much larger. Where past and gradient are both 0 the
    step is 0. Defaults as in the authors' code.

    Source: Chen et al. 2023, Symbolic discovery of optimization algorithms, arXiv 2302.06675, algorithm 2.
    """
    d = -lr*sign(beta1*m + (1 - beta1)*g)
    return decayed(d, x, lr=lr, rate=weight_decay), beta2*m + (1 - beta2)*g


@rule
def rprop(g, last=0, rate="lr", *, lr: NonNegative = 1e-2, eta_minus: Fraction = 0.5, eta_plus: AtLeastOne = 1.2,
          min_rate: NonNegative = 1e-6, max_rate: NonNegative = 50.0):
    """Rprop (resilient propagation): a rate for each coordinate, steered by the signs of its last two gradients.

    Equal signs: the rate grows, and the step goes that far against the gradient, whatever its size. Opposite signs: a
    minimum was passed; the rate shrinks, the coordinate stays, and the next step neither grows nor shrinks. The paper
    of 1993 takes the last step back instead; staying is the iRprop⁻ of Igel & Hüsken, and what torch calls Rprop. lr is
    where the rates start; 1993 has 0.1, torch 0.01. For gradients of all data: the noise of batches turns signs.

    Source: Riedmiller & Braun 1993, A direct adaptive method for faster backpropagation learning; Igel & Hüsken 2003,
    Empirical evaluation of the improved Rprop learning algorithms.
    """
    turned = sign(g)*sign(last)  # not the sign of g·last, which may underflow
    rate = where(turned > 0, minimum(rate*eta_plus, max_rate),
                 where(turned < 0, maximum(rate*eta_minus, min_rate), rate))
    g = where(turned < 0, 0, g)
    return -sign(g)*rate, g, rate


@rule
def amsgrad(g, t, m=0, v="eps", v_max="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9,
            beta2: Fraction = 0.999, eps: NonNegative = 1e-8):
    """AMSGrad: Adam divided by the root of the largest v so far, which never falls.

    Adam forgets large gradients that are rare, and need not converge because of it. The maximum is of v as it is, as in
    the paper's algorithm, torch and Keras (optax: of the corrected v). That algorithm has no correction for the start
    at 0; it is kept here, as in torch and Keras, so that rates may grow at first, with √(1-beta2ᵗ), but not later.
    What v_max starts at it never falls below: unlike Adam's, eps does not fade, and acts on |g| like √eps = 1e-4 for
    ever. For small gradients set eps=0.

    Source: Reddi, Kale & Kumar 2018, On the convergence of Adam and beyond, arXiv 1904.09237, algorithm 2.
    """
    m = beta1*m + (1 - beta1)*g
    v = beta2*v + (1 - beta2)*g*g
    v_max = maximum(v_max, v)
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/root(v_max), m, v, v_max


@rule
def adabelief(g, t, m=0, s="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
              eps: NonNegative = 1e-16):
    """AdaBelief: Adam divided by how far gradients stray from their average, not by how large they are.

    Where g is as m predicted the step is long, where it is not it is short. The paper adds eps to s at every step; here
    s starts at it, as all accumulators do. Either way s is small where gradients hardly change, and steps grow: under a
    constant gradient s fades like beta2ᵗ and the step grows like beta2⁻ᵗᐟ² (1.6 times in 1,000 steps), in the paper up
    to lr·|g|·√((1-beta2)/eps), here without end. For gradients with noise, such as those of batches. eps is that of the
    authors' package, which adds it outside of the root as well, as optax does, and rectifies the first steps as RAdam
    does unless told otherwise.

    Source: Zhuang et al. 2020, AdaBelief optimizer: adapting stepsizes by the belief in observed gradients,
    arXiv 2010.07468, algorithm 2.
    """
    m = beta1*m + (1 - beta1)*g
    s = beta2*s + (1 - beta2)*(g - m)*(g - m)
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/root(s), m, s


@rule
def radam(g, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
          eps: NonNegative = 1e-8):
    """RAdam (rectified Adam): Adam whose first steps, for which v is too uncertain, are Momentum's.

    ρ is how many gradients v stands for, ρ∞ in the long run. Up to ρ = 4 the variance of 1/√v is infinite, and the step
    is that of the corrected m alone; then Adam's, times r, which grows to 1: a warm-up that needs no length. With
    beta2 ≤ 0.6 ρ never exceeds 4. The threshold is the paper's; torch has 5, one step later at beta2 = 0.999, and so
    has optax unless told otherwise.

    Source: Liu et al. 2020, On the variance of the adaptive learning rate and beyond, arXiv 1908.03265, algorithm 2.
    """
    d, m, v = adam.formula(g, t, m, v, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    ρ_inf = 2/(1 - beta2) - 1
    ρ = ρ_inf - 2*t*beta2**t/(1 - beta2**t)
    r = sqrt((ρ - 4)*(ρ - 2)*ρ_inf/((ρ_inf - 4)*(ρ_inf - 2)*ρ))
    return where(ρ > 4, r*d, -lr/(1 - beta1**t)*m), m, v


@rule
def ademamix(g, x, t, m1=0, m2=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
             beta3: Fraction = 0.9999, alpha: NonNegative = 5.0, alpha_warmup: NonNegative = 0.0,
             beta3_warmup: NonNegative = 0.0, eps: NonNegative = 1e-8, weight_decay: NonNegative = 0.0):
    """AdEMAMix: AdamW with a second, much slower average of the gradients beside the first.

    Half of the weight in m2 is that of the last 6,930 gradients (at beta3 0.9999); it is not corrected for its start at
    0. So slow a momentum may upset the first steps, so its share may grow linearly to alpha over alpha_warmup steps,
    and its memory from beta1's to beta3's, linearly in the half-life log(1/2)/log(beta3), over beta3_warmup steps. The
    paper takes both as long as the run, which only the caller knows: 0, the default, is no warm-up, as in the authors'
    code and optax. alpha 5 is that of the authors' code for optax (theirs for torch: 2; the paper: 4 to 10 work well).
    The schedule of beta3 is made of log and exp, functions of the system's library: while it lasts, another machine may
    differ in the last bit. Where gradients stop, v fades long before m2: m/√v grows, in the paper up to m/eps, here up
    to 10⁶.

    Source: Pagliardini, Ablin & Grangier 2024, The AdEMAMix optimizer: better, faster, older, arXiv 2409.03137,
    algorithm 1.
    """
    a = alpha*minimum(t/maximum(alpha_warmup, 1), 1)
    f = t/maximum(beta3_warmup, 1)
    b = where(f < 1, minimum(exp(1/((1 - f)/log(beta1) + f/log(beta3))), beta3), beta3)
    m1 = beta1*m1 + (1 - beta1)*g
    m2 = b*m2 + (1 - b)*g
    v = beta2*v + (1 - beta2)*g*g
    mixed = m1/(1 - beta1**t) + a*m2
    d = -lr*sqrt(1 - beta2**t)*mixed/root(v, mixed)
    return decayed(d, x, lr=lr, rate=weight_decay), m1, m2, v


@rule
def adan(g, x, t, m=0, v=0, n="eps", last="g", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.98,
         beta2: Fraction = 0.92, beta3: Fraction = 0.99, eps: NonNegative = 1e-8, weight_decay: NonNegative = 0.0):
    """Adan (adaptive Nesterov momentum): Nesterov's look-ahead estimated from how the gradient changed.

    m averages gradients, v their changes, n the squares of the gradient looked ahead to, g + beta2·(g - last). The
    betas are, as everywhere here, the share that is kept: 1 minus the paper's (0.02, 0.08, 0.01), so its 1 - β₂ is
    beta2. (optax 0.2.8 has 1 - beta2 there, 0.08 for 0.92.) m and v start at 0, n at eps, and they are corrected as
    Adam's are: as in the authors' code, whose defaults these are. The paper starts m and n at the first gradient and
    its square, which makes the same first step, and may restart, which the authors' code leaves to the caller. The
    decay is proximal: the stepped parameter is divided by 1 + lr·weight_decay. Where gradients stop, the quotient by √n
    is kept below 10⁶, should n forget sooner than m and v.

    Source: Xie et al. 2022, Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models,
    arXiv 2208.06677, algorithm 1.
    """
    change = g - last
    m = beta1*m + (1 - beta1)*g
    v = beta2*v + (1 - beta2)*change
    ahead = g + beta2*change
    n = beta3*n + (1 - beta3)*ahead*ahead
    mixed = m/(1 - beta1**t) + beta2*v/(1 - beta2**t)
    d = lr*sqrt(1 - beta3**t)*mixed/root(n, mixed)
    return -(d + lr*weight_decay*x)/(1 + lr*weight_decay), m, v, n, g


def trust_ratio(a: Any, b: Any, like: Any) -> Any:
    """a/b as far as it fits the numbers of `like`; 1 where one of the two is 0. a counts up to the root of the largest
    number, as a leaf that only grows does so by a share of itself with every step."""
    return where(minimum(a, b) > 0, minimum(minimum(a, 1/sqrt(tiny(like)))/b, 1/tiny(like)), 1)


@rule
def lars(g, x, velocity=0, *, lr: NonNegative = 1.0, momentum: Fraction = 0.9, trust: Positive = 1e-3,
         weight_decay: NonNegative = 0.0):
    """LARS (layer-wise adaptive rate scaling): Momentum at a rate for each leaf, in proportion to how large that is.

    The rate is lr·trust·|x|/(|g| + weight_decay·|x|), with the norms of the whole leaf: gradients of any size change a
    leaf by about the share lr·trust of itself. Where a norm is 0, as in a leaf that starts at 0, the rate is lr, as in
    optax, which has |g + weight_decay·x| below the line. For very large batches. momentum and trust are the paper's;
    it tunes lr, from 2 to 40, and decays by 5e-4.

    Source: You, Gitman & Ginsburg 2017, Large batch training of convolutional networks, arXiv 1708.03888, algorithm 1.
    """
    size = norm(x, over="leaf")
    slope = norm(g, over="leaf") + weight_decay*size
    ratio = trust_ratio(trust*size, slope, x)
    velocity = momentum*velocity - lr*(ratio*(g + weight_decay*x))
    return velocity, velocity


@rule
def lamb(g, x, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
         eps: NonNegative = 1e-8, weight_decay: NonNegative = 0.0):
    """LAMB: AdamW's step, made for each leaf as long as lr times that leaf.

    The norms are those of the whole leaf; where one is 0, as in a leaf that starts at 0, the step is AdamW's. φ, by
    which the paper may bound the leaf's norm, is the identity, as in optax. Keras decays weights outside of the ratio,
    by lr·weight_decay alone. For very large batches. Defaults as optax', which has none for lr; eps, which starts v
    here, is Adam's.

    Source: You et al. 2020, Large batch optimization for deep learning: training BERT in 76 minutes, arXiv 1904.00962,
    algorithm 2.
    """
    d, m, v = adamw.formula(g, x, t, m, v, lr=1, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
    ratio = trust_ratio(norm(x, over="leaf"), norm(d, over="leaf"), x)
    return lr*(ratio*d), m, v


@rule(rest=mean_point)
def schedule_free_sgd(g, x, z="x", weight=scalar(0, over="leaf"), peak=scalar(0, over="leaf"), *,
                      lr: NonNegative = 1.0, beta: Between = 0.9):
    """Schedule-Free SGD: an average of all points takes the place of a falling rate, without knowing the last step.

    z takes SGD's steps, the point to report is the mean of all z, and gradients are taken between the two, at
    y = (1 - beta)·z + beta·mean. The array that `step` updates is y (in the formula x, as always); `rest(params)`
    returns the mean, the paper's x. Keep beta as it is during a run. Each z weighs in the mean by the square of the
    largest lr so far, as in the authors' code: those of a warm-up, which is a schedule for lr, count less. Their
    weight_decay is `l2` in front of this rule. Defaults as theirs.

    Source: Defazio et al. 2024, The road less scheduled, arXiv 2405.15682, equations 3 to 5.
    """
    peak = maximum(peak, lr)
    weight = weight + peak*peak
    c = peak*peak/maximum(weight, tiny(weight))
    return c*(z - x) + lr*(beta*(1 - c) - 1)*g, z - lr*g, weight, peak


@rule(rest=lambda x, z, *, beta1: mean_point(x, z, beta=beta1))
def schedule_free_adamw(g, x, t, v="eps", z="x", weight=scalar(0, over="leaf"), peak=scalar(0, over="leaf"), *,
                        lr: NonNegative = 2.5e-3, beta1: Between = 0.9, beta2: Fraction = 0.999,
                        eps: NonNegative = 1e-8, weight_decay: NonNegative = 0.0):
    """Schedule-Free AdamW: Schedule-Free SGD whose gradient is divided by the root of its averaged square.

    beta1 is how near to the mean gradients are taken, and stands for Adam's first moment. The decay is of the point y
    that `step` updates; `rest(params)` returns the mean. For the rest see `schedule_free_sgd`. The correction
    √(1-beta2ᵗ) is of the gradient, as in the authors' code, whose defaults these are; the paper has it in lr, so that
    there early steps decay less and early z weigh less in the mean.

    Source: Defazio et al. 2024, The road less scheduled, arXiv 2405.15682, algorithm 1.
    """
    v = beta2*v + (1 - beta2)*g*g
    u = sqrt(1 - beta2**t)*g/root(v) + weight_decay*x
    d, z, weight, peak = schedule_free_sgd.formula(u, x, z, weight, peak, lr=lr, beta=beta1)
    return d, v, z, weight, peak


@rule
def prodigy(g, x, m=0, v="eps", s=0, x0="x", r=scalar(0), d=scalar("d0"), *, lr: NonNegative = 1.0,
            beta1: Fraction = 0.9, beta2: Fraction = 0.999, eps: NonNegative = 1e-8, d0: Positive = 1e-6,
            d_coef: Positive = 1.0, weight_decay: NonNegative = 0.0):
    """Prodigy: Adam at a rate d·lr of which it finds d, one number for the whole tree, by itself.

    d is an estimate, from below, of how far the start x0 is from the minimum. It starts at d0 and only grows, to
    d_coef·Σ⟨g, x0 - x⟩/|Σ g|₁, sums that weigh later steps more. lr is for a schedule, else it stays 1; to tune, set
    d_coef. m, v, r and s are the paper's over powers of d0, which cancel (the authors' code does so with r and s): eps
    is what it is in Adam, and nothing underflows. Gradients are cut to those whose squares times d²/d0² fit the dtype.
    On a loss that falls for ever d grows until float32 cannot hold its square over d0², which is refused, or in float64
    to 1e150 times d0. Moments are not corrected. The decay is by d·lr·weight_decay of the parameter. Left out of the
    authors' code, as in its defaults: a beta3 of its own, growth_rate, safeguard_warmup, use_bias_correction (optax:
    always), decay in the gradient, slice_p. Defaults as theirs.

    Source: Mishchenko & Defazio 2024, Prodigy: an expeditiously adaptive parameter-free learner, arXiv 2306.06101,
    algorithm 4 (of version 3).
    """
    k = d/d0
    longest = 1/sqrt(tiny(g))
    cut = where(abs(g) < 1/tiny(g), minimum(maximum(g, -longest/k), longest/k), g)
    m = beta1*m + (1 - beta1)*k*cut
    v = beta2*v + (1 - beta2)*k*k*cut*cut
    beta3 = sqrt(beta2)
    won = beta3*r + (1 - beta3)*k*k*total(lr*cut*(x0 - x))
    r = where(abs(won) < 1e300, won, r)
    s = beta3*s + (1 - beta3)*k*k*lr*cut
    size = total(abs(s))
    step = decayed(-d*lr*(m/root(v, m)), x, lr=d*lr, rate=weight_decay)
    way = minimum(d_coef*r/size, 1e150*d0)
    return step, m, v, s, x0, r, where(size > 0, maximum(d, way), d)
