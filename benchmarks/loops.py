"""A training loop of torch after its backward pass: the optimizer's step, then that of a scheduler, which writes lr."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.contenders import peer
from benchmarks.measure import Timings, alternate
from benchmarks.ours import Step, arrays
from benchmarks.sizes import Shapes
from fallline._engines.threads import num_threads

__all__ = ["CHANNELS_LAST", "CHECKED", "CONVOLUTIONS", "FUSED", "ITERATIONS", "OURS", "SIZES", "loop"]

LR, DECAY = 1e-9, 0.1  # a rate so small that all steps are alike
OURS, CHECKED, FUSED = "fallline.torch", "fallline.torch, checked", "torch fused"
CHANNELS_LAST = ", channels_last"
CONVOLUTIONS = "20 x (256, 256, 3, 3)"
_LAYER: Shapes = [(384,), (384,), (1152, 384), (1152,), (384, 384), (384,), (384,), (384,), (1536, 384), (1536,),
                  (384, 1536), (384,)]  # fmt: skip
SIZES: dict[str, Shapes] = {
    "150 x 100": [(100,)] * 150,
    "150, 25 M": [*_LAYER * 12, (9000, 384), (256, 384), (384,), (384,), (1,), (1,)],  # as nanoGPT's
    CONVOLUTIONS: [(256, 256, 3, 3)] * 20,
}


def _adamw(module: str, **options: Any) -> Callable[[Any], Any]:
    return lambda groups: peer(module).AdamW(groups, LR, **options)


OPTIMIZERS: Mapping[str, Callable[[Any], Any]] = {
    OURS: _adamw("fallline.torch", nonfinite="propagate"),
    CHECKED: _adamw("fallline.torch"),
    FUSED: _adamw("torch.optim", fused=True),
    "torch foreach": _adamw("torch.optim", foreach=True),
}
ITERATIONS = (*OPTIMIZERS, *(name + CHANNELS_LAST for name in (OURS, CHECKED, FUSED)))


def loop(size: str, seconds: float) -> Timings:
    """An iteration by each optimizer; where there are images, with their channels last, too."""
    gc.collect()
    names = ITERATIONS if size == CONVOLUTIONS else OPTIMIZERS
    return alternate({name: _iteration(name, SIZES[size]) for name in names}, seconds)


def _iteration(name: str, shapes: Shapes) -> Step:
    """Every other tensor is in the group with weight decay."""
    torch = peer("torch")
    torch.set_num_threads(num_threads())  # as many as ours
    form = torch.channels_last if name.endswith(CHANNELS_LAST) else torch.contiguous_format
    params, grads = ([torch.from_numpy(a).contiguous(memory_format=form) for a in arrays(shapes, seed)]
                     for seed in (0, 1))  # fmt: skip
    for p, g in zip(params, grads):
        p.requires_grad_().grad = g
    optimizer = OPTIMIZERS[name.removesuffix(CHANNELS_LAST)](
        [{"params": params[::2], "weight_decay": DECAY}, {"params": params[1::2], "weight_decay": 0.0}])  # fmt: skip
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))

    def step() -> None:
        optimizer.step()
        scheduler.step()

    return step
