"""A `keras.optimizers.Optimizer` that steps by an optimizer of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from fallline._functional.mistaken import instead_of
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer as Ours
from fallline.keras.config import from_data, to_data
from fallline.keras.leaves import Leaves
from fallline.keras.rates import as_keras, rate_of

__all__ = ["Optimizer"]

if keras.backend.backend() == "torch":
    from fallline.keras.host import Stepping
else:
    from fallline.keras.traced import Stepping  # type: ignore[assignment]


@keras.saving.register_keras_serializable(package="fallline")
class Optimizer(keras.optimizers.Optimizer):
    """A fallline optimizer for Keras models, to compile them with.

    Parameters
    ----------
    opt: an optimizer or a chain of `fallline`; it is copied and starts fresh.
    learning_rate: as for Keras's optimizers a float, one of its schedules, or a function without arguments; or a
        schedule of fallline. None: the lr of `opt`.
    weight_decay, clipnorm, clipvalue, global_clipnorm: as for Keras's optimizers, and done by Keras, before `opt` takes
        its step.
    use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps, name: likewise.

    `learning_rate` takes the place of the optimizer's lr, in the dtype `keras.config.floatx()`. It is NaN, and cannot
    be set, where there is no single lr: in rules without one (AdaDelta), in a partition, or where it differs by leaf.

    All variables are stepped together, so that a norm in a chain is that of all. Their leaf paths, for partitions,
    masks and settings by path, are their Keras paths, such as "sequential/dense/kernel".

    Raises TypeError if `opt` is no optimizer of fallline, or has a schedule that hears values; ValueError for a
    learning rate out of the range of lr.

    >>> import keras, fallline as fl
    >>> w = keras.Variable([3.0, 4.0])
    >>> opt = Optimizer(fl.chain(fl.clip_norm(1.0), fl.Momentum(0.5)))
    >>> opt.apply([2 * w.value], [w])
    >>> [round(x, 6) for x in w.value.tolist()]
    [2.7, 3.6]
    """

    def __init__(self, opt: Ours, learning_rate: Any = None, *, weight_decay: float | None = None,
                 clipnorm: float | None = None, clipvalue: float | None = None, global_clipnorm: float | None = None,
                 use_ema: bool = False, ema_momentum: float = 0.99, ema_overwrite_frequency: int | None = None,
                 loss_scale_factor: float | None = None, gradient_accumulation_steps: int | None = None,
                 name: str | None = None) -> None:
        if not isinstance(opt, Ours):
            raise TypeError("fallline.keras.Optimizer takes an optimizer of fallline, such as fallline.Adam(1e-3). "
                            f"Got {brief(opt)}.{instead_of(opt)}")
        if opt._stepper.hears:
            raise TypeError(f"{opt._title} has a schedule that hears values, but Keras's loops report none: use "
                            "keras.callbacks.ReduceLROnPlateau.")
        made, rate, why = rate_of(opt.fresh())
        for what, value in (("learning_rate", learning_rate), ("weight_decay, times the learning rate,", weight_decay)):
            if why and value is not None:
                raise TypeError(f"{what} cannot be given: {why}")
        super().__init__(
            learning_rate=rate if learning_rate is None else as_keras(learning_rate, made), weight_decay=weight_decay,
            clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm, use_ema=use_ema,
            ema_momentum=ema_momentum, ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor, gradient_accumulation_steps=gradient_accumulation_steps, name=name)
        self._made, self._why_fixed, self._stepping = made, why, Stepping(made, rated=not why)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the coming step, as for Keras's optimizers."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._why_fixed:
            raise TypeError(f"learning_rate cannot be set: {self._why_fixed}")
        keras.optimizers.Optimizer.learning_rate.fset(self, as_keras(value, self._made))

    def build(self, variables: Sequence[Any]) -> None:
        """Make the state of these variables, unless there is some already."""
        if self.built:
            return
        self._leaves = Leaves([v for v in variables if not getattr(v, "overwrite_with_gradient", False)])
        rate = self.learning_rate
        self._stepping.begin(self._leaves, self.add_variable, float(getattr(rate, "value", rate)))
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Step one variable alone."""
        self._backend_update_step([gradient], [variable], learning_rate)

    def _backend_update_step(self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
                             ) -> None:
        self._stepping.step({self._leaves.path(v): g for v, g in zip(trainable_variables, grads)}, learning_rate)

    def stateless_apply(self, optimizer_variables: Sequence[Any], grads: Sequence[Any],
                        trainable_variables: Sequence[Any]) -> Any:
        """Return what variables and state become by a step, and leave both as they are; see Keras's optimizers."""
        with self._stepping.stateless():
            return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    def save_own_variables(self, store: Any) -> None:
        """Put the state into the file of a model; the other back end can go on from there."""
        for k, v in enumerate(self.variables):
            store[str(k)] = self._stepping.saved(v)

    def load_own_variables(self, store: Any) -> None:
        """Take the state from the file of a model."""
        known = {str(k): v for k, v in enumerate(self.variables)}
        found = {key: store[key] for key in store.keys()}  # noqa: SIM118  # no mapping
        super().load_own_variables({key: self._stepping.loaded(known[key], array) if key in known else array
                                    for key, array in found.items()})

    def get_config(self) -> dict[str, Any]:
        """Return how to make the optimizer again, without state, as JSON takes it."""
        config = super().get_config()
        if self._why_fixed:
            del config["learning_rate"]
        return {"opt": to_data(self._made), **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Optimizer:
        """Make the optimizer of a config. `custom_objects` has, by name, rules that are not fallline's own, and by the
        name of the setting your own functions among its settings; so does `keras.saving.load_model`.

        Raises CheckpointError for those that are missing, naming them.
        """
        opt = from_data(config["opt"], custom_objects)
        return super().from_config({**config, "opt": opt}, custom_objects)
