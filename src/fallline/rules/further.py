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
    """AdamW: Adam with decoupled weight decay, which its moments do not see.

    Each step also shrinks the parameter by lr·weight_decay of itself. As a term of the gradient (`l2`), the decay would
    be divided by √v like the rest, so it would be smallest where gradients are large. The paper scales the decay by its
    schedule only, not by lr; lr·weight_decay and the default 1e-2 are torch's. Equivalent to chain(Adam(...),
    weight_decay(...)).

    Source: Loshchilov & Hutter 2019, Decoupled weight decay regularization, arXiv 1711.05101, algorithm 2.
    """
    d, m, v = adam.formula(g, t, m, v, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    return decayed(d, x, lr=lr, rate=weight_decay), m, v


@rule
def nadamw(g, x, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
           eps: NonNegative = 1e-8, weight_decay: NonNegative = 1e-2):
    """NadamW: Nadam with decoupled weight decay, which its moments do not see.

    NadamW is to Nadam what AdamW is to Adam: Nesterov's look-ahead, decoupled decay, AdamW's defaults.

    Source: Dozat 2016, with the decay of Loshchilov & Hutter 2019, arXiv 1711.05101; together in Dahl et al. 2023,
    Benchmarking neural network training algorithms, arXiv 2306.07179.
    """
    d, m, v = nadam.formula(g, t, m, v, lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    return decayed(d, x, lr=lr, rate=weight_decay), m, v


@rule
def lion(g, x, m=0, *, lr: NonNegative = 1e-4, beta1: Fraction = 0.9, beta2: Fraction = 0.99,
         weight_decay: NonNegative = 0.0):
    """Lion (evolved sign momentum): steps by the sign of a momentum, so every coordinate moves by lr.

    beta1 weighs the gradient against the past in the step, beta2 in the state. As every step is ±lr, lr should be 3 to
    10 times smaller than AdamW's, and weight_decay larger by the same factor. Where past and gradient are both 0, the
    step is 0. The defaults are those of the authors' code.

    Source: Chen et al. 2023, Symbolic discovery of optimization algorithms, arXiv 2302.06675, algorithm 2.
    """
    d = -lr*sign(beta1*m + (1 - beta1)*g)
    return decayed(d, x, lr=lr, rate=weight_decay), beta2*m + (1 - beta2)*g


@rule
def rprop(g, last=0, rate="lr", *, lr: NonNegative = 1e-2, eta_minus: Fraction = 0.5, eta_plus: AtLeastOne = 1.2,
          min_rate: NonNegative = 1e-6, max_rate: NonNegative = 50.0):
    """Rprop (resilient propagation): adapts the rate of each coordinate by the signs of its last two gradients.

    If the signs are equal, the rate grows, and the coordinate steps by it against the gradient, whatever the gradient's
    size. If they are opposite, a minimum was passed: the rate shrinks, the coordinate stays, and at the next step the
    rate neither grows nor shrinks. The paper of 1993 takes the last step back instead; staying is the iRprop⁻ of Igel &
    Hüsken, which torch calls Rprop. lr is the initial rate; it is 0.1 in the paper of 1993, 0.01 in torch. Use it with
    full-batch gradients: the noise of mini-batches flips signs.

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
    """AMSGrad: Adam that divides by the root of the largest v so far, which never falls.

    Adam forgets large gradients that are rare, so it need not converge. The maximum is taken of the uncorrected v, as
    in the paper's algorithm, torch and Keras (optax: of the corrected v). The paper's algorithm does not correct for
    the start at 0. The correction is kept here, as in torch and Keras, so rates may grow at first, with √(1-beta2ᵗ),
    but not later. v_max never falls below its initial value: unlike Adam's, this eps does not fade, and acts on |g|
    like √eps = 1e-4 for ever. For small gradients set eps=0.

    Source: Reddi, Kale & Kumar 2018, On the convergence of Adam and beyond, arXiv 1904.09237, algorithm 2.
    """
    m = beta1*m + (1 - beta1)*g
    v = beta2*v + (1 - beta2)*g*g
    v_max = maximum(v_max, v)
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/root(v_max), m, v, v_max


@rule
def adabelief(g, t, m=0, s="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
              eps: NonNegative = 1e-16):
    """AdaBelief: Adam that divides by how far gradients deviate from their average, not by how large they are.

    If g is close to m, the step is long; if not, it is short. The paper adds eps to s at every step; here s starts at
    eps, as all accumulators do. Either way, s is small where gradients hardly change, and steps grow: under a constant
    gradient s fades like beta2ᵗ and the step grows like beta2⁻ᵗᐟ² (1.6 times in 1,000 steps), in the paper up to
    lr·|g|·√((1-beta2)/eps), here without limit. Use it with noisy gradients, such as those of mini-batches. The default
    eps is that of the authors' package, which like optax also adds it outside the root, and by default rectifies the
    first steps as RAdam does.

    Source: Zhuang et al. 2020, AdaBelief optimizer: adapting stepsizes by the belief in observed gradients,
    arXiv 2010.07468, algorithm 2.
    """
    m = beta1*m + (1 - beta1)*g
    s = beta2*s + (1 - beta2)*(g - m)*(g - m)
    return -lr*sqrt(1 - beta2**t)/(1 - beta1**t)*m/root(s), m, s


@rule
def radam(g, t, m=0, v="eps", *, lr: NonNegative = 1e-3, beta1: Fraction = 0.9, beta2: Fraction = 0.999,
          eps: NonNegative = 1e-8):
    """RAdam (rectified Adam): Adam that takes Momentum's steps at first, while v is too uncertain.

    ρ is the number of gradients that v stands for, ρ∞ its limit. Up to ρ = 4 the variance of 1/√v is infinite, and the
    step uses the corrected m alone. After that it is Adam's step times r, which grows to 1: a warm-up whose length you
    need not choose. With beta2 ≤ 0.6, ρ never exceeds 4. The threshold 4 is the paper's. torch uses 5, one step later
    at beta2 = 0.999, and so does optax by default.

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

    The last 6,930 gradients have half the weight in m2 (at beta3 0.9999), which is not corrected for its start at 0.
    Such a slow momentum may upset the first steps. So its share can grow linearly to alpha over alpha_warmup steps, and
    its memory from beta1's to beta3's, linearly in the half-life log(1/2)/log(beta3), over beta3_warmup steps. In the
    paper both last as long as the run, which only the caller knows; the default 0 is no warm-up, as in the authors'
    code and optax. alpha 5 is from the authors' code for optax (their code for torch: 2; the paper: 4 to 10 work well).
    The schedule of beta3 uses log and exp from the system's library, so while it lasts another machine may differ in
    the last bit. If gradients stop, v fades long before m2, and m/√v grows: in the paper up to m/eps, here up to 10⁶.

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

    m averages gradients, v their changes, n the squares of the gradient looked ahead to, g + beta2·(g - last). As
    everywhere here, the betas are the share that is kept: 1 minus the paper's (0.02, 0.08, 0.01), so the paper's 1 - β₂
    is beta2. (optax 0.2.8 has 1 - beta2 there, 0.08 instead of 0.92.) m and v start at 0 and n at eps, with Adam's
    corrections, as in the authors' code, which also gives the defaults. The paper starts m and n at the first gradient
    and its square, which gives the same first step. It may also restart, which the authors' code leaves to the caller.
    The decay is proximal: the stepped parameter is divided by 1 + lr·weight_decay. If gradients stop and n fades sooner
    than m and v, the quotient by √n is kept below 10⁶.

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
    """LARS (layer-wise adaptive rate scaling): Momentum whose rate for each leaf is proportional to the leaf's norm.

    The rate is lr·trust·|x|/(|g| + weight_decay·|x|), with the norms of the whole leaf: gradients of any size change a
    leaf by about the share lr·trust of itself. Where a norm is 0, as in a leaf that starts at 0, the rate is lr, as in
    optax, whose denominator is |g + weight_decay·x|. LARS is meant for very large batches. The defaults of momentum and
    trust are the paper's, which tunes lr from 2 to 40 and decays by 5e-4.

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
    """LAMB: AdamW's step, scaled for each leaf to lr times the leaf's norm.

    The norms are those of the whole leaf. Where one is 0, as in a leaf that starts at 0, the step is AdamW's. φ, by
    which the paper may bound the leaf's norm, is the identity, as in optax. Keras decays weights outside the ratio, by
    lr·weight_decay alone. LAMB is meant for very large batches. The defaults are optax's, which has none for lr; eps,
    the initial value of v here, is Adam's.

    Source: You et al. 2020, Large batch optimization for deep learning: training BERT in 76 minutes, arXiv 1904.00962,
    algorithm 2.
    """
    d, m, v = adamw.formula(g, x, t, m, v, lr=1, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
    ratio = trust_ratio(norm(x, over="leaf"), norm(d, over="leaf"), x)
    return lr*(ratio*d), m, v


@rule(rest=mean_point)
def schedule_free_sgd(g, x, z="x", weight=scalar(0, over="leaf"), peak=scalar(0, over="leaf"), *,
                      lr: NonNegative = 1.0, beta: Between = 0.9):
    """Schedule-Free SGD: averages all points instead of lowering the rate, and need not know the last step.

    z takes SGD's steps, the point to report is the mean of all z, and gradients are taken between the two, at y = (1 -
    beta)·z + beta·mean. `step` updates y (in the formula x, as always); `rest(params)` returns the mean, the paper's x.
    Keep beta constant during a run. As in the authors' code, the weight of each z in the mean is the square of the
    largest lr so far, so points of a warm-up (a schedule for lr) count less. Their weight_decay is `l2` before this
    rule. The defaults are theirs.

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
    """Schedule-Free AdamW: Schedule-Free SGD with the gradient divided by the root of its averaged square.

    beta1 says how close to the mean gradients are taken, and replaces Adam's first moment. The decay acts on the point
    y that `step` updates; `rest(params)` returns the mean. See `schedule_free_sgd` for more. The correction √(1-beta2ᵗ)
    applies to the gradient, as in the authors' code, which also gives the defaults. The paper applies it to lr, so
    early steps decay less and early z weigh less in the mean.

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
    """Prodigy: Adam at a rate d·lr, where it estimates d, one number for the whole tree, by itself.

    d is a lower estimate of the distance from the start x0 to the minimum. It starts at d0 and only grows, to
    d_coef·Σ⟨g, x0 - x⟩/|Σ g|₁; the sums weigh later steps more. Use lr only for a schedule, otherwise leave it at 1; to
    tune, set d_coef. m, v, r and s are the paper's divided by powers of d0, which cancel (the authors' code does this
    with r and s), so eps means the same as in Adam, and nothing underflows. Gradients are limited so that their squares
    times d²/d0² fit the dtype. On a loss that falls for ever, d grows until float32 cannot hold its square over d0²,
    which is refused, or in float64 to 1e150 times d0. Moments are not corrected. The parameter decays by
    d·lr·weight_decay of itself. The defaults are those of the authors' code. Its options that are off by default are
    left out: a separate beta3, growth_rate, safeguard_warmup, use_bias_correction (optax: always on), decay in the
    gradient, slice_p.

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
