"""torch.optim's optimizers, as `fallline.dialects.torch.Adam` and so on, as of torch 2.13.

`foreach` and `fused`, which only say how torch runs, are accepted and have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fallline import rules
from fallline._formula.rule import Link, Rule
from fallline._messages.values import brief
from fallline.dialects.dialect import dialect, link, missing, only, refuse
from fallline.rules import dialects as own

__all__ = ["ASGD", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam",
           "RMSprop", "Rprop"]  # fmt: skip

Links = Iterator[Link | None]


def _run(links: Links, *, maximize: bool = False, foreach: Any = None, fused: Any = None, capturable: bool = False,
         differentiable: bool = False) -> Links:
    """Links, climbing if asked for."""
    refuse("torch's optimizers", {
        "capturable": (capturable, "nothing here is captured in a CUDA graph"),
        "differentiable": (differentiable, "for gradients through a step call a rule's formula"),
    })  # fmt: skip
    yield only(maximize, rules.maximize)
    yield from links


def _decay(links: Links, *, weight_decay: Any = 0) -> Links:
    """Links behind decay as a part of the gradient."""
    yield only(weight_decay != 0, rules.l2, rate=weight_decay)
    yield from links


def _decoupled(rule: Link, weight_decay: Any, decoupled: bool) -> Links:
    """A rule with decay of one kind or the other."""
    yield only(weight_decay != 0 and not decoupled, rules.l2, rate=weight_decay)
    yield rule
    yield only(weight_decay != 0 and decoupled, rules.weight_decay, rate=weight_decay)


of_torch, with_decay, bare = dialect(_run), dialect(_decay, _run), dialect()


@with_decay
def SGD(lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False) -> Links:
    """torch's SGD: lr multiplies the momentum buffer, whose first value is the gradient."""
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError("nesterov=True of dialects.torch.SGD needs a momentum above 0 and no dampening.")
    rule: Rule = own.torch_nesterov if nesterov else own.torch_sgd
    yield only(momentum != 0, rule, lr=lr, momentum=momentum, dampening=dampening) or link(rules.sgd, lr=lr)


@with_decay
def ASGD(lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0) -> Links:
    """torch's ASGD: a falling rate, and an average of the points from t0 on in the state `ax`."""
    yield link(own.torch_asgd, lr=lr, lambd=lambd, alpha=alpha, t0=t0)


@with_decay
def Adagrad(lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10) -> Links:
    """torch's Adagrad: adds eps outside the root, and lowers the rate by lr_decay."""
    yield link(own.torch_adagrad, lr=lr, lr_decay=lr_decay, initial=initial_accumulator_value, eps=eps)


@with_decay
def Adadelta(lr=1.0, rho=0.9, eps=1e-6, weight_decay=0) -> Links:
    """torch's Adadelta: Zeiler's form times lr."""
    yield link(own.torch_adadelta, lr=lr, rho=rho, eps=eps)


@with_decay
def RMSprop(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False) -> Links:
    """torch's RMSprop: adds eps outside the root; `centered` divides by the variance of the gradients."""
    rule: Rule = own.torch_rmsprop_centered if centered else own.torch_rmsprop
    yield link(rule, lr=lr, rho=alpha, eps=eps, momentum=momentum)


@of_torch
def Rprop(lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50)) -> Links:
    """torch's Rprop: the same as `fallline.Rprop`."""
    yield link(rules.rprop, lr=lr, eta_minus=etas[0], eta_plus=etas[1], min_rate=step_sizes[0], max_rate=step_sizes[1])


@of_torch
def Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, *, decoupled_weight_decay=False
         ) -> Links:
    """torch's Adam: adds eps outside the root of the corrected v, and decay to the gradient."""
    rule: Rule = own.torch_amsgrad if amsgrad else own.torch_adam
    return _decoupled(link(rule, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps), weight_decay, decoupled_weight_decay)


@of_torch
def AdamW(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, decoupled_weight_decay=True
          ) -> Links:
    """torch's AdamW: its Adam with decoupled weight decay."""
    if not decoupled_weight_decay:
        raise ValueError("decoupled_weight_decay=False is dialects.torch.Adam.")
    rule: Rule = own.torch_amsgrad if amsgrad else own.torch_adam
    return _decoupled(link(rule, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps), weight_decay, True)


@with_decay
def Adamax(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0) -> Links:
    """torch's Adamax: adds eps to the gradient's magnitude."""
    yield link(own.torch_adamax, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps)


@of_torch
def NAdam(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, momentum_decay=4e-3, decoupled_weight_decay=False
          ) -> Links:
    """torch's NAdam: Dozat's form, in which beta1 grows over the run."""
    rule = link(own.torch_nadam, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, momentum_decay=momentum_decay)
    return _decoupled(rule, weight_decay, decoupled_weight_decay)


@of_torch
def RAdam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decoupled_weight_decay=False) -> Links:
    """torch's RAdam: rectifies from ρ = 5 on, the paper from 4."""
    rule = link(own.torch_radam, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps)
    return _decoupled(rule, weight_decay, decoupled_weight_decay)


@of_torch
def Adafactor(lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0) -> Links:
    """torch's Adafactor: its first eps is a lower bound, by default the machine epsilon of the compute dtype."""
    rule: Rule = own.torch_adafactor_usual if eps[0] is None else own.torch_adafactor
    bound = {} if eps[0] is None else {"eps1": eps[0]}
    yield link(rule, lr=lr, beta2_decay=beta2_decay, **bound, eps2=eps[1], d=d)
    yield only(weight_decay != 0, rules.weight_decay, rate=weight_decay)


@bare
def Muon(lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True, ns_coefficients=(3.4445, -4.7750, 2.0315), eps=1e-7,
         ns_steps=5, adjust_lr_fn=None) -> Links:
    """torch's Muon, for matrices only. torch orthogonalises in bfloat16, fallline in the compute dtype."""
    rates = {None: own.torch_muon, "original": own.torch_muon, "match_rms_adamw": own.torch_muon_rms}
    if adjust_lr_fn not in (*rates,):
        raise ValueError("adjust_lr_fn of dialects.torch.Muon must be 'original', 'match_rms_adamw' or None. Got "
                         f"{brief(adjust_lr_fn)}.")
    if ns_steps not in range(100):
        raise ValueError(f"ns_steps of dialects.torch.Muon must be a whole number from 0 to 99. Got {brief(ns_steps)}.")
    a, b, c = ns_coefficients
    yield link(own.averaged_ahead if nesterov else own.averaged, momentum=momentum)
    yield link(rates[adjust_lr_fn], lr=lr, a=a, b=b, c=c, eps=eps, steps=ns_steps)
    yield only(weight_decay != 0, rules.weight_decay, rate=weight_decay)


if not TYPE_CHECKING:
    __getattr__ = missing(__name__, __all__)
