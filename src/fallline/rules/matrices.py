"""Rules of whole leaves: NumPy functions of matrices, for what is no formula over coordinates.

They promise neither the same bits on every machine nor one pass through memory: matrix products are those of NumPy's
BLAS, sums are NumPy's. On one machine, with one build of NumPy and one number of BLAS threads, runs repeat to the bit.
All is computed in the computed dtype (float32 or float64, never less).
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
    """Muon: Nesterov's momentum for matrices, made orthogonal, so that all directions are stepped alike.

    Leaves with two axes are matrices, whatever they stand for; all others are stepped by AdamW, with the same lr and
    weight_decay and the settings adam_*. A kernel of a convolution is not flattened: reshape it to two axes to have it
    stepped as a matrix. Embeddings and the last layer are meant for AdamW although they are matrices: give them an
    optimizer of their own by `partition`. State is one array (m) for matrices, two (m, v) for others. lr, momentum and
    weight_decay are torch's by default.

    Of the two factors in use, 0.2·√max(rows, columns) of Liu et al. is taken (Keras' default, torch's
    "match_rms_adamw", optax' consistent_rms=0.2): it gives steps the size of AdamW's, so that one lr and weight_decay
    does for all leaves, and does not ask which axis is the output. The other, √max(1, outputs/inputs) of Jordan's code
    and the default of torch and optax, goes with an lr of about 0.02: multiply lr by the ratio of the two to have it.
    optax corrects momentum and gradient for their start by different powers, which fades in some 100 steps.

    Jordan's code and torch compute the products in bfloat16, and let no norm be below 1e-7; here the dtype is the
    computed one (float32 or float64), and the size of gradients does not matter, however small. Products are BLAS':
    another machine, or another number of BLAS threads, may differ in the last bits. A NaN or an inf that is let in is
    soon everywhere in its matrix.

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
    """Adafactor: for matrices the second moment is kept as the means of its rows and of its columns.

    The state of a matrix is rows + columns instead of rows·columns numbers. Of leaves with more axes the last two are
    factored, for each index of the others; leaves with fewer keep a whole v. There is no first moment. The step is
    relative: the root mean square of the parameter (at least eps2) times min(lr, 1/√t), the second of which takes over
    at t = 1/lr², step 10,000; it is shortened where the root mean square of g/√v exceeds `threshold`. The second
    moment's β₂ = 1 - t^(-decay_rate) needs no correction, as it is 0 at t = 1. Sums are divided by their lengths, which
    changes nothing, and are NumPy's: another machine may differ in the last bits.

    torch bounds √v and the mean of the rows from below by eps1, machine epsilon, where the paper adds eps1 to g²; optax
    leaves 1/√t to its schedule, and factors the two largest axes, if both are 128 or more; transformers has the paper's
    settings, and flags for others; Keras is as here, with an lr of 0.001 by default. The paper has no weight decay:
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
