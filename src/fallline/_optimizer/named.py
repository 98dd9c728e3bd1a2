"""The optimisers by name, in the order of the rules. A name is a rule with a class; nothing is restated.

What is defined here is a public name of fallline: nothing has to be listed.
"""

from typing import Any

from fallline import rules
from fallline._optimizer.optimizer import Optimizer
from fallline._optimizer.points import at


class SGD(Optimizer):
    rule = rules.sgd


class Momentum(Optimizer):
    rule = rules.momentum

    def lookahead(self, params: Any) -> Any:
        """Return params + momentum·velocity, as a new tree: the point at which Nesterov's method takes the gradient.

        >>> import fallline as fl
        >>> opt = fl.Momentum(lr=1.0, momentum=0.5)
        >>> w = opt.step(0.0, 1.0)
        >>> w, opt.lookahead(w)
        (-1.0, -1.5)
        """
        return self._stepper.turn.join(at, self._stepper, lambda chain: rules.looked_ahead, params)


class Nesterov(Optimizer):
    rule = rules.nesterov


class AdaGrad(Optimizer):
    rule = rules.adagrad


class RMSProp(Optimizer):
    rule = rules.rmsprop


class AdaDelta(Optimizer):
    rule = rules.adadelta


class Adam(Optimizer):
    rule = rules.adam


class AdaMax(Optimizer):
    rule = rules.adamax


class Nadam(Optimizer):
    rule = rules.nadam


class NadaMax(Optimizer):
    rule = rules.nadamax


class AdamW(Optimizer):
    rule = rules.adamw


class NadamW(Optimizer):
    rule = rules.nadamw


class Lion(Optimizer):
    rule = rules.lion


class Rprop(Optimizer):
    rule = rules.rprop


class AMSGrad(Optimizer):
    rule = rules.amsgrad


class AdaBelief(Optimizer):
    rule = rules.adabelief


class RAdam(Optimizer):
    rule = rules.radam


class AdEMAMix(Optimizer):
    rule = rules.ademamix


class Adan(Optimizer):
    rule = rules.adan


class LARS(Optimizer):
    rule = rules.lars


class LAMB(Optimizer):
    rule = rules.lamb


class ScheduleFreeSGD(Optimizer):
    rule = rules.schedule_free_sgd


class ScheduleFreeAdamW(Optimizer):
    rule = rules.schedule_free_adamw


class Prodigy(Optimizer):
    rule = rules.prodigy


class Muon(Optimizer):
    rule = rules.muon


class Adafactor(Optimizer):
    rule = rules.adafactor


OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: value for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
}
TEN = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdaMax", "Nadam", "NadaMax")
"""The article's, which race if nobody is named, in the order of the report."""
