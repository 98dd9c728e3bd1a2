"""TensorFlow 1's RMSProp and Ftrl, whose formulas no other library has, as of `fallline.dialects.tensorflow`.

Like TensorFlow, they round hyper-parameters to float32 before computing, whatever the dtype of the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fallline._formula.rule import Link
from fallline.dialects.dialect import Given, dialect, link, missing, only
from fallline.dialects.keras import ftrl
from fallline.rules import dialects as own

__all__ = ["Ftrl", "RMSProp"]

Links = Iterator[Link | None]


def _rounded(links: Links) -> Links:
    """With the numbers as float32 has them, but for what state starts at."""
    for each in links:
        if each is not None:
            yield link(each.rule, **{name: value.rounded() if isinstance(value, Given) and name != "initial" else value
                                     for name, value in each.settings.items()})


of_tensorflow = dialect(_rounded)


@of_tensorflow
def RMSProp(learning_rate, decay=0.9, momentum=0.0, epsilon=1e-10, centered=False) -> Links:
    """TensorFlow 1's RMSProp: starts the mean square at 1, adds epsilon inside the root; increments have momentum."""
    yield link(own.keras_rmsprop_centered if centered else own.keras_rmsprop, lr=learning_rate, rho=decay, initial=1.0,
               eps=epsilon)
    yield only(momentum != 0, own.trace, momentum=momentum)


@of_tensorflow
def Ftrl(learning_rate, learning_rate_power=-0.5, initial_accumulator_value=0.1, l1_regularization_strength=0.0,
         l2_regularization_strength=0.0, l2_shrinkage_regularization_strength=0.0, beta=0.0) -> Links:
    """TensorFlow 1's Ftrl; a whole-leaf rule if the power is not -1/2."""
    return ftrl("dialects.tensorflow.Ftrl", learning_rate_power, lr=learning_rate, initial=initial_accumulator_value,
                l1=l1_regularization_strength, l2=l2_regularization_strength,
                shrinkage=l2_shrinkage_regularization_strength, beta=beta)


if not TYPE_CHECKING:
    __getattr__ = missing(__name__, __all__)
