"""Ways to take an Adam step over the same shapes: ours, NumPy as people write it and tuned by hand, other libraries.

Each is a function of shapes that returns a function which takes one step, or None if its library is not installed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fallline as fl
from fallline.engines.native import native_kernel
from fallline.engines.work import Job
from fallline.memory import address
from fallline.schema import Rule
from fallline.trace import Instruction, Program

Step = Callable[[], Any]
Shapes = Sequence[tuple[int, ...]]
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def arrays(shapes: Shapes, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) * np.float32(1e-3) for shape in shapes]


def limit(rule: Rule, shapes: Shapes) -> Step:
    """A kernel that reads and writes the same arrays as the rule and does next to nothing with them."""
    slots = tuple(rule.slots)
    inputs = ("x", "g", *slots)
    code = (Instruction("add", (0, 1)), *(Instruction("neg", (2 + k,)) for k in range(len(slots))))
    outputs = (("x", len(inputs)), *((slot, len(inputs) + 1 + k) for k, slot in enumerate(slots)))
    program = Program(inputs, (), code, outputs, "", (), frozenset())
    kernel: Any = native_kernel(program, np.dtype(np.float32))
    owned = [arrays(shapes, seed) for seed in range(len(inputs))]
    constants = np.zeros(1, np.float32)
    job = Job(kernel.chunks, [a.size for a in owned[0]], len(inputs) + 2)
    job.table[:, 1:-1] = np.array([[address(a) for a in leaves] for leaves in owned]).T
    job.table[:, -1] = address(constants)
    run = job.prepared()
    run.kept = owned, constants, job  # type: ignore[attr-defined]
    return run


def ours(optimizer: fl.Optimizer, shapes: Shapes, *, new_gradients: bool = False) -> Step:
    params, grads = arrays(shapes), [arrays(shapes, 1), arrays(shapes, 2)]
    one = len(shapes) == 1
    w, turns = (params[0] if one else params), [g[0] if one else g for g in grads]
    if not new_gradients:
        return lambda: optimizer.step(w, turns[0])

    def step() -> None:
        turns.reverse()
        optimizer.step(w, turns[0])

    return step


def ours_update(optimizer: fl.Optimizer, shapes: Shapes, *, out: bool) -> Step:
    grads, target = arrays(shapes, 1), arrays(shapes, 2) if out else None
    return lambda: optimizer.update(grads, out=target)


def numpy_listing(shapes: Shapes) -> Step:
    """Adam as people write it, house form."""
    w, g, t = arrays(shapes), arrays(shapes, 1), 0
    m, v = [np.zeros_like(a) for a in w], [np.full_like(a, EPS) for a in w]

    def step() -> None:
        nonlocal t
        t += 1
        rate = LR * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
        for k in range(len(w)):
            m[k] = BETA1 * m[k] + (1 - BETA1) * g[k]
            v[k] = BETA2 * v[k] + (1 - BETA2) * g[k] * g[k]
            w[k] -= np.float32(rate) * m[k] / np.sqrt(v[k])

    return step


def numpy_in_place(shapes: Shapes) -> Step:
    """The same, tuned by hand: no array is allocated, nothing is computed twice."""
    w, g, t = arrays(shapes), arrays(shapes, 1), 0
    m, v = [np.zeros_like(a) for a in w], [np.full_like(a, EPS) for a in w]
    spare = [np.empty_like(a) for a in w]
    c1, c2 = np.float32(1 - BETA1), np.float32(1 - BETA2)
    b1, b2 = np.float32(BETA1), np.float32(BETA2)

    def step() -> None:
        nonlocal t
        t += 1
        rate = np.float32(-LR * (1 - BETA2**t) ** 0.5 / (1 - BETA1**t))
        for wk, gk, mk, vk, s in zip(w, g, m, v, spare):
            np.multiply(gk, c1, out=s)
            np.multiply(mk, b1, out=mk)
            np.add(mk, s, out=mk)
            np.multiply(gk, gk, out=s)
            np.multiply(s, c2, out=s)
            np.multiply(vk, b2, out=vk)
            np.add(vk, s, out=vk)
            np.sqrt(vk, out=s)
            np.divide(mk, s, out=s)
            np.multiply(s, rate, out=s)
            np.add(wk, s, out=wk)

    return step


def torch_adam(shapes: Shapes, **options: bool) -> Step | None:
    torch = _peer("torch")
    if torch is None:
        return None
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    params = [torch.nn.Parameter(torch.from_numpy(a)) for a in arrays(shapes)]
    for p, g in zip(params, arrays(shapes, 1)):
        p.grad = torch.from_numpy(g)
    return torch.optim.Adam(params, lr=LR, **options).step


def optax_adam(shapes: Shapes) -> Step | None:
    jax, optax = _peer("jax"), _peer("optax")
    if jax is None or optax is None:
        return None
    opt = optax.adam(LR)
    held = {"w": [jax.numpy.asarray(a) for a in arrays(shapes)]}
    g = [jax.numpy.asarray(a) for a in arrays(shapes, 1)]
    held["s"] = opt.init(held["w"])

    def advance(w: Any, s: Any, g: Any) -> Any:
        updates, s = opt.update(g, s, w)
        return optax.apply_updates(w, updates), s

    jitted = jax.jit(advance, donate_argnums=(0, 1))

    def step() -> None:
        held["w"], held["s"] = jax.block_until_ready(jitted(held["w"], held["s"], g))

    return step


def keras_adam(shapes: Shapes) -> Step | None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = _peer("keras") if _peer("torch") else None
    if keras is None:
        return None
    variables = [keras.Variable(a) for a in arrays(shapes)]
    grads = [keras.ops.convert_to_tensor(a) for a in arrays(shapes, 1)]
    opt = keras.optimizers.Adam(LR)
    opt.build(variables)
    return lambda: opt.apply(grads, variables)


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
