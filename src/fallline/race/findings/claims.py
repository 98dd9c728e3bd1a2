"""What the article claims of its optimisers, judged by the runs of this race."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from fallline.race.contenders.grid import WITHIN
from fallline.race.findings.statistics import LEVEL, Pair, signed_rank


class Verdict(Enum):
    """The only three answers."""

    SEEN = "seen"
    NOT_SEEN = "not seen"
    UNDECIDED = "undecided here"


@dataclass(frozen=True)
class Claim:
    """A claim with its criterion, the answer, and the figures behind it."""

    text: str
    criterion: str
    verdict: Verdict
    because: str


@dataclass(frozen=True)
class Evidence:
    """The runs that claims are judged by; losses and curves by optimiser, one row per fresh seed.

    `alone` says that nothing depends on the seed, so that one run is exact and any difference is clear.
    """

    losses: Mapping[str, np.ndarray]
    untuned: Mapping[str, np.ndarray]
    curves: Mapping[str, np.ndarray]
    pairs: Sequence[Pair]
    convex: bool | None
    alone: bool


def judge(evidence: Evidence) -> list[Claim]:
    """The five claims, each with its verdict."""
    return [
        _beats("Nesterov", "Momentum", "Nesterov beats Momentum.", evidence),
        _fast_then_slow(evidence),
        _where_not_convex(evidence),
        _without_tuning(evidence),
        _beats("Nadam", "Adam", "Nadam improves on Adam.", evidence),
    ]


def _beats(better: str, worse: str, text: str, evidence: Evidence) -> Claim:
    criterion = "Final losses at tuned rates, by the race's paired test: clearly lower is seen, clearly higher not."

    def decide() -> tuple[Verdict, str]:
        pair = next(p for p in evidence.pairs if {p.first, p.second} == {better, worse})
        medians = " against ".join(f"{np.median(evidence.losses[name]):.3g}" for name in (better, worse))
        because = f"Median final loss {medians}, adjusted p = {pair.p_adjusted:.2g}."
        if not pair.clear:
            return Verdict.UNDECIDED, because
        return (Verdict.SEEN if pair.first == better else Verdict.NOT_SEEN), because

    return _claim(text, criterion, (better, worse), evidence.losses, decide)


def _where_not_convex(evidence: Evidence) -> Claim:
    text = "RMSProp beats AdaGrad where the loss is not convex."
    claim = _beats("RMSProp", "AdaGrad", text, evidence)
    if evidence.convex:
        return Claim(text, claim.criterion, Verdict.UNDECIDED, "This problem's loss is convex.")
    known = "" if evidence.convex is False else " Whether this loss is convex is not known here."
    return Claim(text, claim.criterion, claim.verdict, claim.because + known)


def _fast_then_slow(evidence: Evidence) -> Claim:
    text = "AdaGrad is fast first and ever slower later."
    criterion = (
        "AdaGrad's loss over the median loss of the others at the same step and seed: below 1 after a tenth of the "
        f"steps, and higher at the end than then, both clearly (signed-rank test over seeds, p < {LEVEL})."
    )

    def decide() -> tuple[Verdict, str]:
        ratio = _ratio_to_others("AdaGrad", evidence.curves)
        early, late = ratio[:, ratio.shape[1] // 10], ratio[:, -1]
        figures = f"{np.exp(np.median(early)):.2f} times the others' after a tenth of the steps"
        because = f"Its loss is {figures}, {np.exp(np.median(late)):.2f} times at the end."
        return _both(_sign(early, evidence.alone), -_sign(late - early, evidence.alone)), because

    enough = {"AdaGrad", *(name for name in evidence.curves if name != "AdaGrad")}
    needs = ("AdaGrad",) if len(enough) > 2 else ("AdaGrad", "at least two others")
    return _claim(text, criterion, needs, evidence.curves, decide)


def _without_tuning(evidence: Evidence) -> Claim:
    text = "AdaDelta does without a tuned rate."
    criterion = (
        f"Its final loss at the class defaults over that at its tuned eps: clearly at most {WITHIN:g} is seen, clearly "
        f"above not (signed-rank test over seeds, p < {LEVEL})."
    )

    def decide() -> tuple[Verdict, str]:
        untuned, tuned = evidence.untuned["AdaDelta"], evidence.losses["AdaDelta"]
        shared = min(len(untuned), len(tuned))
        ratio = _log(untuned[:shared]) - _log(tuned[:shared])
        because = f"Untuned it ends at {np.exp(np.median(ratio)):.3g} times its tuned loss."
        sign = _sign(ratio - np.log(WITHIN), evidence.alone)
        return {-1: Verdict.SEEN, 0: Verdict.UNDECIDED, 1: Verdict.NOT_SEEN}[sign], because

    return _claim(text, criterion, ("AdaDelta",), evidence.untuned, decide)


def _claim(
    text: str, criterion: str, needs: Sequence[str], have: Mapping, decide: Callable[[], tuple[Verdict, str]]
) -> Claim:
    missing = [name for name in needs if name not in have]
    if missing:
        because = f"Not raced to the end here, with the defaults of its class: {', '.join(missing)}."
        return Claim(text, criterion, Verdict.UNDECIDED, because)
    return Claim(text, criterion, *decide())


def _sign(values: np.ndarray, alone: bool) -> int:
    """−1 or 1 where the values clearly lie on that side of 0, else 0."""
    if not alone and signed_rank(values) >= LEVEL:
        return 0
    return int(np.sign(np.median(values)))


def _both(first: int, second: int) -> Verdict:
    """Two conditions, each −1 where clearly met and 1 where clearly not."""
    if 1 in (first, second):
        return Verdict.NOT_SEEN
    return Verdict.SEEN if (first, second) == (-1, -1) else Verdict.UNDECIDED


def _ratio_to_others(name: str, curves: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log of a contender's loss over the median of the others, by seed and mark."""
    shared = min(len(rows) for rows in curves.values())
    others = np.median([rows[:shared] for other, rows in curves.items() if other != name], axis=0)
    return _log(curves[name][:shared]) - _log(others)


def _log(losses: np.ndarray) -> np.ndarray:
    """Logarithms that stay finite: a loss of 0 or a diverged run must not make ∞ − ∞."""
    return np.log(np.clip(losses, 1e-300, 1e300))
