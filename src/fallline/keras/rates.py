"""The learning rate: a setting of ours, and what Keras has of it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import keras

from fallline._formula.settings import hearing
from fallline._optimizer.optimizer import Optimizer
from fallline.schedules.base import Schedule as OurSchedule
from fallline.schedules.data import from_data, is_built_in, to_data

__all__ = ["Schedule", "as_keras", "rate_of"]


@keras.saving.register_keras_serializable(package="fallline")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of fallline, or another function of the number of completed steps, as one of Keras's."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule

    def __call__(self, step: Any) -> Any:
        step = getattr(step, "value", step)
        if keras.backend.backend() == "torch":
            return self.schedule(int(step))
        from fallline._engines.jax.scalars import is_traced  # JAX is there
        from fallline._functional.share import followed

        if not is_traced(step):
            return self.schedule(int(step))
        return keras.ops.cast(followed(self.schedule, step, "learning_rate"), keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Return how to make it again: data, or what Keras makes of a function."""
        own = is_built_in(self.schedule)
        return {"schedule": to_data(self.schedule) if own else keras.saving.serialize_keras_object(self.schedule)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Make it of a config."""
        saved = config["schedule"]
        return cls(from_data(saved) if "schedule" in saved else keras.saving.deserialize_keras_object(saved))


def as_keras(rate: Any, opt: Optimizer) -> Any:
    """A learning rate as Keras takes it: numbers in the range of the optimizer's lr, schedules of fallline as Keras's.

    Raises ValueError for a number out of range, TypeError for a schedule that hears values.
    """
    if hearing(rate):
        raise TypeError("learning_rate is a schedule that hears values, but Keras's loops report none: use "
                        "keras.callbacks.ReduceLROnPlateau.")
    if isinstance(rate, numbers.Real):
        opt.fresh().hyper["lr"] = float(rate)
        return float(rate)
    return Schedule(rate) if isinstance(rate, OurSchedule) else rate


def rate_of(opt: Optimizer) -> tuple[Optimizer, Any, str]:
    """An optimizer whose lr is a number, the learning rate that Keras is to have for it, and if there is no single one
    (NaN) why, with the remedy."""
    lr = opt.hyper.get("lr")
    if callable(lr):
        opt.hyper["lr"] = float(lr(0))
        return opt, Schedule(lr), ""
    if isinstance(lr, numbers.Real):
        return opt, float(lr), ""
    if lr is not None:
        return opt, math.nan, f"lr of {opt._title} differs by leaf and stays its own: give a new optimizer other rates."
    several = [name for name in opt.hyper if name.endswith(".lr")]
    if several:
        return opt, math.nan, f"{opt._title} has several rates, {', '.join(several)}, which stay its own."
    return opt, math.nan, f"{opt._title} has no lr. fallline.dialects.keras has rules with one, as Keras's Adadelta."
