"""Steps every configuration of torch's own tests of its optimizers by ours and by torch's, and makes every error.

Run by itself, as torch.testing._internal changes how torch behaves. It prints what differs, and how much it tried.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import fallline.torch

warnings.filterwarnings("ignore")
EXECUTION = ("capturable", "differentiable", "foreach", "fused")
STEPS = 50
# Of the way in 50 steps, each with its reason: torch's ASGD keeps its rate, and its NAdam a product, in float32; Muon's
# matrices are made orthogonal in bfloat16, and Adafactor's factors go through roots of means in another order.
GOOD_TO = {("NAdam", torch.float64): 1e-5, ("ASGD", torch.float64): 1e-5, ("Muon", torch.float64): 0.2,
           ("Muon", torch.float32): 0.2}  # fmt: skip
# What torch refuses as its own ways of running cannot have it: ours has one way.
ALLOWED = ("as a Tensor is not supported", "beta1 must be", "betas must be", "foreach=True")


def ours(cls):
    return getattr(fallline.torch, cls.__name__, None) if cls.__name__ in fallline.torch.__all__ else None


def parameters(dtype, matrices):
    make = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (2, 5)] if matrices else [(4, 3), (5,), ()]
    return [torch.nn.Parameter(torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)) for shape in shapes]


def walked(cls, kwargs, dtype, matrices):
    params = parameters(dtype, matrices)
    opt = cls(params, **kwargs)
    make = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        for p in params:
            p.grad = torch.randn(p.shape, generator=make, dtype=torch.float64).to(dtype)
        opt.step()
    return [p.detach().double() for p in params]


def configurations():
    for info in optim_db:
        cls = ours(info.optim_cls)
        for config in info.optim_inputs_func(device="cpu") if cls else ():
            if not any(config.kwargs.get(key) for key in ("capturable", "differentiable")):
                yield info, cls, config


def compare():
    count = 0
    for info, cls, config in configurations():
        for dtype in (torch.float64, torch.float32):
            kwargs = {key: value for key, value in config.kwargs.items() if key not in ("fused", "foreach")}
            matrices = info.optim_cls.__name__ == "Muon"
            count += 1
            theirs, found = (walked(each, kwargs, dtype, matrices) for each in (info.optim_cls, cls))
            starts = [p.detach().double() for p in parameters(dtype, matrices)]
            way = max(float((p - s).abs().max()) for p, s in zip(theirs, starts))
            apart = max(float((p - q).abs().max()) for p, q in zip(theirs, found))
            size = max(float(p.abs().max()) for p in theirs)
            limit = GOOD_TO.get((info.optim_cls.__name__, dtype), 1e-9 if dtype is torch.float64 else 2e-4)
            if not apart <= limit * max(way, size):
                print(f"{info.optim_cls.__name__} {dtype} {kwargs}: {apart:.2g} apart after a way of {way:.2g}")
    return count


def errors():
    count = 0
    for info in optim_db:
        cls = ours(info.optim_cls)
        for case in info.optim_error_inputs_func("cpu", torch.float32) if cls else ():
            given = case.optimizer_error_input
            text = str(case.error_regex)
            if any(word in text for word in ALLOWED) or any(given.kwargs.get(key) for key in EXECUTION):
                continue
            count += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", UserWarning)
                    opt = cls(given.params, **given.kwargs)
                    if case.error_on == OptimizerErrorEnum.STEP_ERROR:
                        opt.step()
                    came = "nothing"
            except case.error_type:
                continue
            except Exception as error:
                came = f"{type(error).__name__}: {error}"
            print(f"{info.optim_cls.__name__} {given.desc or given.kwargs}: {case.error_type.__name__} ({text}), "
                  f"and here: {came}")
    return count


print(f"{compare()} configurations and {errors()} errors", file=sys.stderr)
