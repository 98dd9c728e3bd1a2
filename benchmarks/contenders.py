"""Ways to take an Adam step over the same shapes: ours, NumPy as people write it and tuned by hand, other libraries.

Each is a function of shapes that returns a function which takes one step.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

import fallline as fl
from benchmarks.ours import Step, arrays, ours, ours_new_gradients, ours_update, ours_update_out
from benchmarks.sizes import Shapes
from fallline._arrays.memory import address
from fallline._engines.cpu.engine import native_kernel
from fallline._engines.cpu.work import Cut, Job
from fallline._engines.llvm.finite import finite_check
from fallline._engines.llvm.layout import ROW, pass_columns, row_width
from fallline._engines.threads import num_threads
from fallline._formula.program import Instruction, Program

__all__ = ["CONTENDERS", "LIMIT", "NEEDS", "OURS", "adam", "built", "limit", "missing", "peer"]

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def limit(optimizer: fl.Optimizer, shapes: Shapes) -> Step:
    """Kernels that read and write the same arrays as the optimizer and do next to nothing with them: one for a step,
    and one that reads the gradient before it for a chain that needs its norm."""
    stepping, single = optimizer._chain.stepping, np.dtype(np.float32)
    idle = _idle(stepping)
    slots = [name for name in idle.arrays if name not in ROW]
    (columns,) = pass_columns([idle], slots, [()])
    owned = {name: arrays(shapes, seed) for seed, name in enumerate(idle.arrays)}
    constants, sizes = np.zeros(1, np.float32), [a.size for a in owned["g"]]
    table = np.zeros((len(sizes), row_width([columns], slots)), np.int64)
    table[:, ROW["length"]], table[:, columns["constants"]] = sizes, address(constants)
    for name, leaves in owned.items():
        table[:, columns[name]] = [address(a) for a in leaves]
    cut = Cut(sizes, address(table) + table.strides[0] * np.arange(len(sizes)), [0] * len(sizes))
    job = Job(cut, [native_kernel(idle, single, (), columns, False)],
              [finite_check(single.name, False)] if stepping.readings else [])

    def run(_kept: Any = (owned, constants, table)) -> None:
        job.perform(num_threads())

    return run


def _idle(program: Program) -> Program:
    """A program of the same arrays that adds what is only read to the parameter, and turns the sign of the rest."""
    written = [name for name, _ in program.outputs]
    code: list[Instruction] = []
    first = len(program.inputs)
    value = program.inputs.index("x")
    for k, name in enumerate(program.inputs):
        if name not in written:
            code.append(Instruction("add", (value, k)))
            value = first + len(code) - 1
    outputs = [("x", value)]
    for name in written[1:]:
        source = program.inputs.index(name if name in program.inputs else "g")
        code.append(Instruction("neg", (source,)))
        outputs.append((name, first + len(code) - 1))
    return Program(program.inputs, (), tuple(code), tuple(outputs), "", (), frozenset())


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


def numpy_listing_update(shapes: Shapes) -> Step:
    """The increment alone, which the caller applies."""
    g, t = arrays(shapes, 1), 0
    m, v = [np.zeros_like(a) for a in g], [np.full_like(a, EPS) for a in g]

    def update() -> list[np.ndarray]:
        nonlocal t
        t += 1
        rate = LR * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
        for k in range(len(g)):
            m[k] = BETA1 * m[k] + (1 - BETA1) * g[k]
            v[k] = BETA2 * v[k] + (1 - BETA2) * g[k] * g[k]
        return [-np.float32(rate) * m[k] / np.sqrt(v[k]) for k in range(len(g))]

    return update


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


def torch_adam(shapes: Shapes, **options: bool) -> Step:
    torch = peer("torch")
    torch.set_num_threads(num_threads())  # as many as ours
    params = [torch.nn.Parameter(torch.from_numpy(a)) for a in arrays(shapes)]
    for p, g in zip(params, arrays(shapes, 1)):
        p.grad = torch.from_numpy(g)
    return torch.optim.Adam(params, lr=LR, **options).step


def optax_adam(shapes: Shapes) -> Step:
    jax, optax = peer("jax"), peer("optax")
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


def keras_adam(shapes: Shapes) -> Step:
    keras = peer("keras")
    variables = [keras.Variable(a) for a in arrays(shapes)]
    grads = [keras.ops.convert_to_tensor(a) for a in arrays(shapes, 1)]
    opt = keras.optimizers.Adam(LR)
    opt.build(variables)
    return lambda: opt.apply(grads, variables)


@cache
def peer(name: str) -> Any:
    """A library to compare with; None if it is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def adam(nonfinite: str = "propagate") -> fl.Optimizer:
    """Ours as torch does it, without a check of the gradients, unless asked for."""
    return fl.Adam(LR, nonfinite=nonfinite)


LIMIT, OURS = "limit", "fallline"
CONTENDERS: dict[str, Callable[[Shapes], Step]] = {
    LIMIT: lambda shapes: limit(adam(), shapes),
    OURS: lambda shapes: ours(adam(), shapes),
    "fallline, new gradients": lambda shapes: ours_new_gradients(adam(), shapes),
    "fallline, checked": lambda shapes: ours(adam("raise"), shapes),
    "fallline update": lambda shapes: ours_update(adam(), shapes),
    "fallline update, out=": lambda shapes: ours_update_out(adam(), shapes),
    "NumPy listing": numpy_listing,
    "NumPy listing, update": numpy_listing_update,
    "NumPy in place": numpy_in_place,
    "torch fused": partial(torch_adam, fused=True),
    "torch foreach": partial(torch_adam, foreach=True),
    "torch default": torch_adam,
    "optax, jit": optax_adam,
    "Keras": keras_adam,
}
NEEDS = {"torch fused": ("torch",), "torch foreach": ("torch",), "torch default": ("torch",),
         "optax, jit": ("jax", "optax"), "Keras": ("torch", "keras")}  # fmt: skip


def missing(contender: str) -> list[str]:
    """The libraries that a contender needs and that are not installed."""
    return [name for name in NEEDS.get(contender, ()) if peer(name) is None]


def built(names: Iterable[str], shapes: Shapes) -> Mapping[str, Step]:
    """The contenders of these names that can run here, after whatever earlier ones held is let go."""
    gc.collect()
    return {name: CONTENDERS[name](shapes) for name in names if not missing(name)}
