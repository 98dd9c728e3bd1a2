"""Keras's optimizers, as `fallline.dialects.keras.Adam` and so on, as of Keras 3.15.

weight_decay is decoupled in all of them. `clipnorm` clips each leaf, `global_clipnorm` all leaves together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fallline import rules
from fallline._formula.rule import Link, Rule
from fallline.dialects.dialect import dialect, link, missing, only, refuse
from fallline.rules import dialects as own

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Nadam", "RMSprop"]

Links = Iterator[Link | None]


def _decay(links: Links, *, weight_decay: Any = None) -> Links:
    """Links, and decay beside their step."""
    yield from links
    yield only(weight_decay is not None, rules.weight_decay, rate=weight_decay)


def _clip(links: Links, *, clipnorm: Any = None, clipvalue: Any = None, global_clipnorm: Any = None,
          use_ema: bool = False, ema_momentum: Any = None, ema_overwrite_frequency: Any = None,
          loss_scale_factor: Any = None, gradient_accumulation_steps: Any = None, name: Any = None) -> Links:
    """Links behind clipping; a name, and what is for an average, are taken without effect, as of `get_config`."""
    refuse("Keras' optimizers", {
        "use_ema": (use_ema, "end a chain with fallline.average(ema_momentum), which keeps the average apart"),
        "loss_scale_factor": (loss_scale_factor, "scale the gradients where they are made"),
        "gradient_accumulation_steps": (gradient_accumulation_steps, "wrap it, fallline.accumulate(n, ...)"),
    })  # fmt: skip
    if sum(value is not None for value in (clipnorm, clipvalue, global_clipnorm)) > 1:
        raise ValueError("Only one of clipnorm, clipvalue and global_clipnorm of Keras' optimizers can be given.")
    yield only(clipnorm is not None, own.clip_leaf_norms, max_norm=clipnorm)
    yield only(clipvalue is not None, rules.clip_value, limit=clipvalue)
    yield only(global_clipnorm is not None, rules.clip_norm, max_norm=global_clipnorm)
    yield from links


of_keras = dialect(_decay, _clip)


@of_keras
def SGD(learning_rate=0.01, momentum=0.0, nesterov=False) -> Links:
    """Keras's SGD, with lr inside the momentum: `fallline.SGD`, `fallline.Momentum` or `fallline.Nesterov`."""
    rule: Rule = rules.nesterov if nesterov else rules.momentum
    yield only(momentum != 0, rule, lr=learning_rate, momentum=momentum) or link(rules.sgd, lr=learning_rate)


@of_keras
def RMSprop(learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False) -> Links:
    """Keras's RMSprop: adds epsilon inside the root, and momentum to the increments."""
    yield link(own.keras_rmsprop_centered if centered else own.keras_rmsprop, lr=learning_rate, rho=rho, eps=epsilon)
    yield only(momentum != 0, own.trace, momentum=momentum)


@of_keras
def Adagrad(learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7) -> Links:
    """Keras's Adagrad: adds epsilon inside the root, and starts the sum at 0.1."""
    yield link(own.keras_adagrad, lr=learning_rate, initial=initial_accumulator_value, eps=epsilon)


@of_keras
def Adadelta(learning_rate=0.001, rho=0.95, epsilon=1e-7) -> Links:
    """Keras's Adadelta: Zeiler's form times a learning rate, by default 0.001."""
    yield link(own.torch_adadelta, lr=learning_rate, rho=rho, eps=epsilon)


@of_keras
def Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False) -> Links:
    """Keras's Adam: adds epsilon outside the root of the uncorrected v."""
    rule: Rule = own.keras_amsgrad if amsgrad else own.keras_adam
    yield link(rule, lr=learning_rate, beta1=beta_1, beta2=beta_2, eps=epsilon)


@of_keras
def AdamW(learning_rate=0.001, weight_decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False) -> Links:
    """Keras's AdamW: its Adam with weight decay, by default 0.004."""
    rule: Rule = own.keras_amsgrad if amsgrad else own.keras_adam
    yield link(rule, lr=learning_rate, beta1=beta_1, beta2=beta_2, eps=epsilon)


@of_keras
def Adamax(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7) -> Links:
    """Keras's Adamax: adds epsilon to the norm."""
    yield link(own.keras_adamax, lr=learning_rate, beta1=beta_1, beta2=beta_2, eps=epsilon)


@of_keras
def Nadam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7) -> Links:
    """Keras's Nadam: Dozat's form, in which beta1 grows within some 100 steps."""
    yield link(own.torch_nadam, lr=learning_rate, beta1=beta_1, beta2=beta_2, eps=epsilon, momentum_decay=1.0)


@dialect(_clip)
def Ftrl(learning_rate=0.001, learning_rate_power=-0.5, initial_accumulator_value=0.1, l1_regularization_strength=0.0,
         l2_regularization_strength=0.0, l2_shrinkage_regularization_strength=0.0, beta=0.0, weight_decay=None
         ) -> Links:
    """Keras's Ftrl; a whole-leaf rule if the power is not -1/2."""
    return ftrl("dialects.keras.Ftrl", learning_rate_power, lr=learning_rate, initial=initial_accumulator_value,
                l1=l1_regularization_strength, l2=l2_regularization_strength,
                shrinkage=l2_shrinkage_regularization_strength, beta=beta,
                weight_decay=0.0 if weight_decay is None else weight_decay)


@of_keras
def Lion(learning_rate=0.001, beta_1=0.9, beta_2=0.99) -> Links:
    """Keras's Lion: `fallline.Lion` with the decay outside the step."""
    yield link(rules.lion, lr=learning_rate, beta1=beta_1, beta2=beta_2)


@dialect(_clip)
def Lamb(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=None) -> Links:
    """Keras's Lamb: scales by the ratio of the decayed parameter to a step without decay."""
    yield link(own.keras_lamb, lr=learning_rate, beta1=beta_1, beta2=beta_2, eps=epsilon,
               weight_decay=0.0 if weight_decay is None else weight_decay)


def ftrl(title: str, power: Any, **settings: Any) -> Links:
    """FTRL: a formula for the usual power, -1/2, otherwise a whole-leaf rule."""
    if not power <= 0:
        raise ValueError(f"learning_rate_power of {title} must be a number ≤ 0. Got {power}.")
    yield link(own.keras_ftrl, **settings) if power == -0.5 else link(own.keras_ftrl_power, power=power, **settings)


if not TYPE_CHECKING:
    __getattr__ = missing(__name__, __all__)
