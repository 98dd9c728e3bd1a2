"""Which differences between optimisers are clear, and the ranks that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

LEVEL = 0.05
ENUMERATED = 13  # up to so many tied differences, 8,192 choices of signs
TEST = "Wilcoxon signed-rank test, paired over seeds, with Benjamini and Hochberg's correction over all pairs"


@dataclass(frozen=True)
class Pair:
    """Two optimisers compared over the seeds they share; `first` has the lower median if `clear`."""

    first: str
    second: str
    p: float
    p_adjusted: float

    @property
    def clear(self) -> bool:
        return self.p_adjusted < LEVEL


def signed_rank(differences: np.ndarray) -> float:
    """The two-sided p value of Wilcoxon's test that paired differences centre on 0; infinite ones rank highest.

    >>> round(signed_rank(np.arange(1.0, 11.0)), 5)
    0.00195
    """
    from scipy.stats import rankdata, wilcoxon

    told_apart = differences[(differences != 0) & ~np.isnan(differences)]
    if len(told_apart) == 0:
        return 1.0
    # The test uses the order of magnitudes alone, and infinities have one, but SciPy subtracts them from each other.
    beyond = 2 * np.max(np.abs(told_apart[np.isfinite(told_apart)]), initial=1.0)
    values = np.clip(told_apart, -beyond, beyond)
    ranks = rankdata(np.abs(values))
    if len(np.unique(ranks)) < len(ranks) <= ENUMERATED:
        return _exact_with_ties(values, ranks)
    return float(wilcoxon(values).pvalue)


def _exact_with_ties(values: np.ndarray, ranks: np.ndarray) -> float:
    """The p value over all choices of signs, which SciPy finds as well, but in 0.3 s."""
    choices = 2 * ((np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1) - 1
    observed = abs(float(np.sign(values) @ ranks))
    return float(np.mean(np.abs(choices @ ranks) >= observed))


def paired_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """first − second, where two diverged runs (both infinite) do not differ."""
    both = np.isinf(first) & np.isinf(second)
    return np.where(both, 0.0, np.where(both, 0.0, first) - np.where(both, 0.0, second))


def compare(losses: Mapping[str, np.ndarray]) -> list[Pair]:
    """Every pair of optimisers, tested over the first seeds that both have finished."""
    pairs = [_ordered(losses, *names) for names in combinations(losses, 2)]
    p = np.array([_p_value(losses, *names) for names in pairs])
    return [Pair(*names, float(raw), float(adj)) for names, raw, adj in zip(pairs, p, adjust(p), strict=True)]


def adjust(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p values (1995)."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p, method="bh") if len(p) else p


def exact(losses: Mapping[str, float]) -> list[Pair]:
    """Every pair where one run is all there is, since nothing depends on the seed: any difference is clear."""
    pairs = []
    for a, b in combinations(losses, 2):
        first, second = (a, b) if losses[a] <= losses[b] else (b, a)
        p = 1.0 if losses[a] == losses[b] else 0.0
        pairs.append(Pair(first, second, p, p))
    return pairs


def rank(ordered: Sequence[str], pairs: Sequence[Pair]) -> dict[str, list[int]]:
    """The ranks of each optimiser: two share one exactly if their difference is not clear.

    "Not clearly different" does not carry over (A from B, B from C, yet A and C differ), so an optimiser can stand
    between two ranks and hold both. Ranks number the largest groups within which nothing is clear, in the order of
    `ordered`, best first; this is the compact letter display (Piepho 2004), in numbers.

    >>> rank(["a", "b", "c"], [Pair("a", "b", 1, 1), Pair("b", "c", 1, 1), Pair("a", "c", 0, 0)])
    {'a': [1], 'b': [1, 2], 'c': [2]}
    """
    unclear = {name: {name} for name in ordered}
    for pair in pairs:
        if not pair.clear:
            unclear[pair.first].add(pair.second)
            unclear[pair.second].add(pair.first)
    place = {name: i for i, name in enumerate(ordered)}
    groups = sorted(sorted(place[name] for name in group) for group in _largest_groups(list(ordered), unclear))
    return {name: [k for k, group in enumerate(groups, 1) if place[name] in group] for name in ordered}


def tied_with(name: str, ranks: Mapping[str, Sequence[int]]) -> list[str]:
    """The others that share a rank with `name`."""
    return [other for other, held in ranks.items() if other != name and set(held) & set(ranks[name])]


def _ordered(losses: Mapping[str, np.ndarray], a: str, b: str) -> tuple[str, str]:
    return (a, b) if np.median(losses[a]) <= np.median(losses[b]) else (b, a)


def _p_value(losses: Mapping[str, np.ndarray], a: str, b: str) -> float:
    shared = min(len(losses[a]), len(losses[b]))
    return signed_rank(paired_difference(losses[a][:shared], losses[b][:shared]))


def _largest_groups(candidates: list[str], unclear: Mapping[str, set[str]]) -> list[set[str]]:
    """All maximal cliques of the relation "not clearly different" (Bron and Kerbosch 1973).

    With a pivot: what is near the one with most neighbours is found from there. Else n that are all tied take 2ⁿ steps.
    """
    found: list[set[str]] = []

    def grow(group: set[str], open_: set[str], seen: set[str]) -> None:
        if not open_ and not seen:
            found.append(group)
            return
        pivot = max(open_ | seen, key=lambda name: len(open_ & unclear[name]))
        for name in sorted(open_ - (unclear[pivot] - {pivot}), key=candidates.index):
            near = unclear[name] - {name}
            grow(group | {name}, open_ & near, seen & near)
            open_ = open_ - {name}
            seen = seen | {name}

    grow(set(), set(candidates), set())
    return found
