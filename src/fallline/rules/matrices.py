"""Whole-leaf rules: NumPy functions of matrices, for algorithms that are no formula over coordinates.

They promise neither the same bits on every machine nor one pass through memory, as they use NumPy's sums and its BLAS
for matrix products. On one machine, with one build of NumPy and one number of BLAS threads, runs repeat to the bit.
Everything is computed in the compute dtype (float32 or float64).
"""

from __future__ import annotations

import numpy as np

from fallline._formula.rule import Fraction, NonNegative, Positive, rule, shaped
from fallline._formula.words import maximum, minimum, root, sqrt, tiny
from fallline.rules.further import adamw
from fallline.rules.modifiers import decayed

# ---- state of other shapes than the leaf's ---------------------------------------------------------------------------

Shape = tuple[int, ...]
NOTHING = (0,)


def unless_matrix(shape: Shape) -> Shape:
    return NOTHING if len(shape) == 2 else shape


def unless_factored(shape: Shape) -> Shape:
    return NOTHING if len(shape) >= 2 else shape


def of_rows(shape: Shape) -> Shape:
    return shape[:-1] if len(shape) >= 2 else NOTHING


def of_columns(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1]) if len(shape) >= 2 else NOTHING


# ---- what the rules compute with -------------------------------------------------------------------------------------


def scaled(a: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest magnitude, and the array divided by it, of which no square overflows and not all vanish."""
    largest = np.max(np.abs(a), initial=0)
    return float(largest), a if largest == 0 else a/largest


def rms(a: np.ndarray) -> float:
    """The root of the mean square of all coordinates; 0 if there are none."""
    largest, a = scaled(a)
    return largest*float(np.sqrt(np.mean(np.square(a), dtype=np.float64))) if a.size else 0.0


def mean(a: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis, which stays with length 1; 0 over nothing."""
    return np.sum(a, axis, keepdims=True)/max(a.shape[axis], 1)


def orthogonal(a: np.ndarray, coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315), steps: int = 5,
               least: float = 0.0) -> np.ndarray:
    """About U·Vᵀ, given a matrix a = U·S·Vᵀ: 5 steps of Newton and Schulz's iteration; 0 for a matrix of zeros.

    The coefficients raise small singular values as fast as can be, and so leave all between 0.68 and 1.14 rather than
    at 1, if they are 0.01 of the norm or more. The iteration needs them at most 1 to begin with: a is divided by its
    Frobenius norm, or by `least`. Of two shapes that are each other's transposes the wide one has the smaller products.
    """
    largest, a = scaled(a)
    if largest == 0:
        return a
    y = a if a.shape[0] <= a.shape[1] else a.T
    y = y/max(float(np.linalg.norm(y)), least/largest)
    for _ in range(steps):
        s = y @ y.T
        y = coefficients[0]*y + (coefficients[1]*s + coefficients[2]*(s @ s)) @ y
    return y if a.shape[0] <= a.shape[1] else y.T


# ---- rules -----------------------------------------------------------------------------------------------------------


@rule(whole_leaf=True)
def muon(g, x, t, m=0, v=shaped("adam_eps", unless_matrix), *, lr: NonNegative = 1e-3, momentum: Fraction = 0.95,
         weight_decay: NonNegative = 0.1, adam_beta1: Fraction = 0.9, adam_beta2: Fraction = 0.999,
         adam_eps: NonNegative = 1e-8):
    """Muon: orthogonalised Nesterov momentum for matrices, so that all directions get the same step size.

    Every leaf with two axes is a matrix. All others are stepped by AdamW, with the same lr and weight_decay and the
    settings adam_*. A convolution kernel is not flattened: reshape it to two axes to step it as a matrix. Embeddings
    and the last layer are matrices but meant for AdamW: give them an optimizer of their own by `partition`. State is
    one array (m) for matrices, two (m, v) for others. The defaults of lr, momentum and weight_decay are torch's.

    Two scale factors are in use. fallline has 0.2·√max(rows, columns) of Liu et al. (Keras's default, torch's
    "match_rms_adamw", optax's consistent_rms=0.2). It gives steps the size of AdamW's, so that one lr and weight_decay
    suits all leaves, and does not depend on which axis is the output. The other, √max(1, outputs/inputs), is that of
    Jordan's code and the default of torch and optax; it goes with an lr of about 0.02. To get it, multiply lr by the
    ratio of the two. optax corrects momentum and gradient for their start by different powers; the difference fades in
    some 100 steps.

    Jordan's code and torch compute the products in bfloat16, and keep norms at 1e-7 or more. Here they are computed in
    float32 or float64, and gradients can be arbitrarily small. Products are computed by BLAS, so another machine, or
    another number of BLAS threads, may differ in the last bits. A NaN or inf that is let in soon spreads through its
    matrix.

    Source: Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks,
    kellerjordan.github.io/posts/muon; Liu et al. 2025, Muon is scalable for LLM training, arXiv 2502.16982.

    >>> import numpy as np, fallline as fl
    >>> w = {"W": np.zeros((2, 2)), "b": np.zeros(2)}
    >>> w = fl.Muon(lr=0.1).step(w, {"W": np.diag([1.0, 0.1]), "b": np.ones(2)})
    >>> w["W"].round(2).tolist(), w["b"].round(2).tolist()
    ([[-0.02, 0.0], [0.0, -0.02]], [-0.1, -0.1])
    """
    if g.ndim != 2:
        return adamw.formula(g, x, t, m, v, lr=lr, beta1=adam_beta1, beta2=adam_beta2, eps=adam_eps,
                             weight_decay=weight_decay)
    m = momentum*m + (1 - momentum)*g
    d = -lr*0.2*sqrt(max(g.shape))*orthogonal(momentum*m + (1 - momentum)*g)
    return decayed(d, x, lr=lr, rate=weight_decay), m, v


@rule(whole_leaf=True)
def adafactor(g, x, t, v=shaped(0, unless_factored), row=shaped(0, of_rows), col=shaped(0, of_columns), *,
              lr: NonNegative = 1e-2, decay_rate: NonNegative = 0.8, threshold: Positive = 1.0,
              eps1: NonNegative = 1e-30, eps2: NonNegative = 1e-3):
    """Adafactor: keeps the second moment of a matrix as the means of its rows and columns.

    The state of a matrix is rows + columns instead of rows·columns numbers. Leaves with more than two axes are factored
    in the last two, for each index of the others; leaves with fewer keep a whole v. There is no first moment. The step
    is relative: the root mean square of the parameter (at least eps2) times min(lr, 1/√t), where 1/√t takes over at t =
    1/lr², step 10,000. It is shortened if the root mean square of g/√v exceeds `threshold`. The second moment's β₂ = 1
    - t^(-decay_rate) needs no correction, as it is 0 at t = 1. Sums are divided by their lengths, which changes
    nothing. They are NumPy's, so another machine may differ in the last bits.

    torch bounds √v and the mean of the rows from below by eps1, machine epsilon, where the paper adds eps1 to g². optax
    leaves 1/√t to its schedule, and factors the two largest axes if both are 128 or more. transformers has the paper's
    settings, and flags for others. Keras is as here, with a default lr of 0.001. The paper has no weight decay;
    chain(Adafactor(), weight_decay(...)) adds one, at lr times its rate.

    Source: Shazeer & Stern 2018, Adafactor: adaptive learning rates with sublinear memory cost, arXiv 1804.04235,
    algorithm 4 and its counterpart for vectors, with the hyper-parameters that the paper proposes.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.Adafactor()
    >>> w = opt.step({"W": np.ones((300, 200)), "b": np.ones(3)}, {"W": np.ones((300, 200)), "b": np.ones(3)})
    >>> [opt.state[slot]["W"].shape for slot in ("v", "row", "col")], opt.state["v"]["b"].shape
    ([(0,), (300,), (200,)], (3,))
    """
    beta2 = 1 - t**-decay_rate
    squares = np.minimum(g*g + eps1, np.finfo(g.dtype).max/max(g.size, 1))  # whose sums do not overflow
    if g.ndim < 2:
        v = beta2*v + (1 - beta2)*squares
        u = g/root(v)
    else:
        row = beta2*row + (1 - beta2)*mean(squares, -1)[..., 0]
        col = beta2*col + (1 - beta2)*mean(squares, -2)[..., 0, :]
        share = row/maximum(mean(row, -1), tiny(row))
        u = g/root(share)[..., None]/root(col)[..., None, :]  # one by one: v = share·col might underflow
    u = u/maximum(1, rms(u)/threshold)
    size = minimum(maximum(eps2, rms(x)), 1/sqrt(tiny(x)))  # a leaf that only grows does so by a share of itself
    return -size*minimum(lr, 1/sqrt(t))*u, v, row, col
