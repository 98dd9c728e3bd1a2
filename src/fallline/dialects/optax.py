"""optax's optimizers, as `fallline.dialects.optax.adam` and so on, as of optax 0.2.8.

`mask` and `mu_dtype` are refused: instead of a mask of decay use a rate by path; state has one dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fallline import rules
from fallline._formula.rule import Link, Rule
from fallline.dialects.dialect import dialect, link, missing, only, refuse
from fallline.rules import dialects as own

__all__ = ["adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "amsgrad", "lamb", "lion", "nadam",
           "nadamw", "novograd", "radam", "rmsprop", "sgd", "yogi"]  # fmt: skip

Links = Iterator[Link | None]


of_optax = dialect()


REMEDIES = {
    "mu_dtype": "state is kept in the dtype that is computed in",
    "accumulator_dtype": "state is kept in the dtype that is computed in",
    "mask": "give weight_decay by path, fallline.by_path(lambda path: ...)",
    "weight_decay_mask": "give weight_decay by path, fallline.by_path(lambda path: ...)",
    "nesterov": "only Adam's has a rule of its own, nadam",
    "bias_correction": "RMSProp corrected is Adam without its first moment, adam(b1=0)",
}


def _plain(**given: Any) -> None:
    """Refuse what has another way here."""
    refuse("optax's optimizers", {name: (value, REMEDIES[name]) for name, value in given.items()})


def _adam(mu_dtype: Any, nesterov: bool, **settings: Any) -> Links:
    _plain(mu_dtype=mu_dtype)
    yield link(own.optax_nadam if nesterov else own.optax_adam, **settings)


@of_optax
def sgd(learning_rate, momentum=None, nesterov=False, accumulator_dtype=None) -> Links:
    """optax's sgd: the learning rate multiplies the trace of the gradients."""
    _plain(accumulator_dtype=accumulator_dtype)
    rule: Rule = own.torch_nesterov if nesterov else own.torch_sgd
    yield only(momentum is not None, rule, lr=learning_rate, momentum=momentum) or link(rules.sgd, lr=learning_rate)


@of_optax
def adagrad(learning_rate, initial_accumulator_value=0.1, eps=1e-7) -> Links:
    """optax's adagrad: adds eps inside the root, and starts the sum at 0.1."""
    yield link(own.keras_adagrad, lr=learning_rate, initial=initial_accumulator_value, eps=eps)


@of_optax
def adadelta(learning_rate, rho=0.9, eps=1e-6, weight_decay=0.0, weight_decay_mask=None) -> Links:
    """optax's adadelta: Zeiler's form times a learning rate, without which optax climbs."""
    _plain(weight_decay_mask=weight_decay_mask)
    yield only(weight_decay != 0, rules.l2, rate=weight_decay)
    yield link(own.torch_adadelta, lr=learning_rate, rho=rho, eps=eps)


@of_optax
def rmsprop(learning_rate, decay=0.9, eps=1e-8, initial_scale=0.0, eps_in_sqrt=True, centered=False, momentum=None,
            nesterov=False, bias_correction=False) -> Links:
    """optax's rmsprop: adds eps inside or outside the root, and a trace of the increments."""
    _plain(bias_correction=bias_correction)
    if not eps_in_sqrt and initial_scale != 0:
        raise ValueError("initial_scale of dialects.optax.rmsprop is for eps_in_sqrt=True.")
    if eps_in_sqrt:
        yield link(own.keras_rmsprop_centered if centered else own.keras_rmsprop, lr=learning_rate, rho=decay,
                   initial=initial_scale, eps=eps)
    else:
        yield link(own.torch_rmsprop_centered if centered else own.torch_rmsprop, lr=learning_rate, rho=decay, eps=eps)
    yield only(momentum is not None, own.nesterov_trace if nesterov else own.trace, momentum=momentum)


@of_optax
def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, *, nesterov=False) -> Links:
    """optax's adam: the paper's form, with a further eps inside the root."""
    return _adam(mu_dtype, nesterov, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root)


@of_optax
def adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, weight_decay=1e-4, mask=None, *,
          nesterov=False) -> Links:
    """optax's adamw: its adam with weight decay, by default 1e-4."""
    _plain(mask=mask)
    yield from _adam(mu_dtype, nesterov, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root)
    yield link(rules.weight_decay, rate=weight_decay)


@of_optax
def nadam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, *, nesterov=True) -> Links:
    """optax's nadam: keeps b1 constant, and corrects the new moment one step ahead."""
    return _adam(mu_dtype, nesterov, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root)


@of_optax
def nadamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, weight_decay=1e-4, mask=None, *,
           nesterov=True) -> Links:
    """optax's nadamw: its nadam with weight decay, by default 1e-4."""
    _plain(mask=mask)
    yield from _adam(mu_dtype, nesterov, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root)
    yield link(rules.weight_decay, rate=weight_decay)


@of_optax
def adamax(learning_rate, b1=0.9, b2=0.999, eps=1e-8) -> Links:
    """optax's adamax: adds eps to the gradient's magnitude."""
    yield link(own.torch_adamax, lr=learning_rate, beta1=b1, beta2=b2, eps=eps)


@of_optax
def adamaxw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4, mask=None) -> Links:
    """optax's adamaxw: its adamax with weight decay, by default 1e-4."""
    _plain(mask=mask)
    yield link(own.torch_adamax, lr=learning_rate, beta1=b1, beta2=b2, eps=eps)
    yield link(rules.weight_decay, rate=weight_decay)


@of_optax
def amsgrad(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, mu_dtype=None, bias_correction_mu=True,
            bias_correction_nu=True) -> Links:
    """optax's amsgrad: takes the largest corrected v."""
    _plain(mu_dtype=mu_dtype)
    if not (bias_correction_mu and bias_correction_nu):
        raise ValueError("dialects.optax.amsgrad has both moments corrected: bias_correction_mu=True and "
                         "bias_correction_nu=True.")
    yield link(own.optax_amsgrad, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root)


@of_optax
def radam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0, *, nesterov=False) -> Links:
    """optax's radam: rectifies from ρ = `threshold` on."""
    _plain(nesterov=nesterov)
    yield link(own.optax_radam, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root, threshold=threshold)


@of_optax
def lion(learning_rate, b1=0.9, b2=0.99, mu_dtype=None, weight_decay=1e-3, mask=None) -> Links:
    """optax's lion: `fallline.Lion` with other defaults."""
    _plain(mu_dtype=mu_dtype, mask=mask)
    yield link(rules.lion, lr=learning_rate, beta1=b1, beta2=b2, weight_decay=weight_decay)


@of_optax
def lamb(learning_rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0, mask=None) -> Links:
    """optax's lamb: scales by the ratio of the parameter to adam's step with decay."""
    _plain(mask=mask)
    yield link(own.optax_lamb, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root,
               weight_decay=weight_decay)


@of_optax
def yogi(learning_rate, b1=0.9, b2=0.999, eps=1e-3) -> Links:
    """optax's yogi: its moments start at 1e-6."""
    yield link(own.optax_yogi, lr=learning_rate, beta1=b1, beta2=b2, eps=eps)


@of_optax
def adabelief(learning_rate, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, *, nesterov=False) -> Links:
    """optax's adabelief: adds eps_root to s at every step, and eps outside the root."""
    _plain(nesterov=nesterov)
    yield link(own.optax_adabelief, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root)


@of_optax
def novograd(learning_rate, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, weight_decay=0.0) -> Links:
    """optax's novograd: divides gradients by the norm of their leaf, whose square is averaged."""
    yield link(own.optax_novograd, lr=learning_rate, beta1=b1, beta2=b2, eps=eps, eps_root=eps_root,
               weight_decay=weight_decay)


if not TYPE_CHECKING:
    __getattr__ = missing(__name__, __all__)
