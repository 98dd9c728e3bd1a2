"""The race's arithmetic on small cases whose answers are known: grids, tests, ranks, spreads, claims."""

import numpy as np
import pytest

from fallline.race.contenders.grid import Grid, best_rate, half_decades, width_in_decades
from fallline.race.findings.claims import Evidence, Verdict, judge
from fallline.race.findings.statistics import (
    LEVEL,
    Pair,
    adjust,
    compare,
    exact,
    paired_difference,
    rank,
    signed_rank,
    tied_with,
)
from fallline.race.findings.summary import median_steps, spread_of
from fallline.race.protocol.runs import steps_to
from fallline.race.protocol.settings import Settings

INF = np.inf


def test_the_grid_runs_from_1e_4_to_3_in_half_decades():
    assert Grid().rates == [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0]


def test_a_best_value_at_an_edge_extends_the_grid_by_a_decade_and_at_most_twice():
    for towards, added in ((1, ([10, 30], [100, 300])), (-1, ([1e-5, 3e-5], [1e-6, 3e-6]))):
        grid, losses = Grid(), {}
        losses |= {rate: rate**-towards for rate in grid.rates}
        for rates in added:
            assert grid.extend(losses) == pytest.approx(rates)
            losses |= {rate: rate**-towards for rate in grid.rates}
        assert grid.extend(losses) == []
        assert grid.edge(losses) == towards


def test_a_best_value_within_the_grid_extends_nothing():
    grid = Grid()
    losses = {rate: abs(np.log10(rate) + 2) for rate in grid.rates}
    assert best_rate(losses) == 0.01
    assert grid.extend(losses) == []
    assert grid.edge(losses) == 0


def test_an_extension_that_finds_its_minimum_is_not_at_the_edge():
    grid = Grid()
    losses = {rate: abs(np.log10(rate / 10)) for rate in grid.rates}
    losses |= {rate: abs(np.log10(rate / 10)) for rate in grid.extend(losses)}
    assert (best_rate(losses), grid.edge(losses), grid.extend(losses)) == (10, 0, [])


def test_diverged_rates_never_count_as_best():
    assert best_rate({0.1: INF, 1.0: 5.0, 3.0: INF}) == 1.0
    assert best_rate({0.1: INF, 1.0: INF}) is None
    assert Grid().edge(dict.fromkeys(half_decades(-8, 1), INF)) == 0


def test_width_counts_the_unbroken_run_of_rates_within_twice_the_best_loss():
    cases = [
        ({0.1: 1.0}, 0.5),
        ({0.1: 2.0, 0.3: 1.0, 1.0: 2.0}, 1.5),
        ({0.1: 1.5, 0.3: 9.0, 1.0: 1.0}, 0.5),
        ({0.1: 1.0, 0.3: INF}, 0.5),
        ({0.1: -1.0, 0.3: 2.0}, None),
        ({0.1: INF}, None),
    ]
    for losses, width in cases:
        assert width_in_decades(losses) == width, losses


def test_tuning_and_fresh_seeds_never_overlap_and_more_repeats_change_none():
    for seed in range(20):
        tuning, fresh = Settings(seed=seed, repeats=10).seeds()
        assert len(tuning) == 3
        assert len(set(tuning) | set(fresh)) == 13
        assert Settings(seed=seed, repeats=12).seeds() == (tuning, Settings(seed=seed, repeats=12).seeds()[1])
        assert Settings(seed=seed, repeats=12).seeds()[1][:10] == fresh


def test_the_signed_rank_test_agrees_with_its_exact_distribution():
    n = 8
    values = np.arange(1.0, n + 1)
    signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1).T
    centred = np.abs((signs * values).sum(axis=1))
    for sign in (signs[0], signs[5], signs[100]):
        observed = abs((sign * values).sum())
        assert signed_rank(sign * values) == pytest.approx(np.mean(centred >= observed))


def test_tied_differences_are_tested_exactly_as_by_scipy():
    from scipy.stats import wilcoxon

    for values in ([1, 1, 1, 1, 1], [2, 2, -1, -1, 3, 3, 3], [1, -1, 2, -2, 3, 4, 4]):
        assert signed_rank(np.array(values, float)) == pytest.approx(wilcoxon(values).pvalue)


def test_two_diverged_runs_do_not_differ_and_one_is_the_greatest_difference():
    difference = paired_difference(np.array([INF, INF, 1.0]), np.array([INF, 1.0, 2.0]))
    assert list(difference) == [0, INF, -1]
    assert signed_rank(np.zeros(10)) == 1
    assert signed_rank(np.full(10, INF)) < LEVEL
    assert signed_rank(np.array([INF] * 9 + [-1.0])) == signed_rank(np.array([20.0] * 9 + [-1.0]))


def test_adjusted_p_values_follow_benjamini_and_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert adjust(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_ten_seeds_can_tell_ten_optimisers_apart():
    losses = {str(i): i + np.linspace(0, 0.1, 10) for i in range(10)}
    pairs = compare(losses)
    assert all(pair.clear for pair in pairs)
    assert list(rank(list(losses), pairs).values()) == [[i] for i in range(1, 11)]


def test_too_few_seeds_tell_nothing_apart():
    pairs = compare({"a": np.arange(5.0), "b": 100 + np.arange(5.0)})
    assert not pairs[0].clear


def test_optimisers_share_a_rank_exactly_if_their_difference_is_not_clear():
    rng = np.random.default_rng(1)
    names = list("abcdefg")
    for _ in range(50):
        pairs = [
            Pair(a, b, p, p) for i, a in enumerate(names) for b in names[i + 1 :] for p in [rng.choice([0.001, 0.5])]
        ]
        ranks = rank(names, pairs)
        for pair in pairs:
            assert bool(set(ranks[pair.first]) & set(ranks[pair.second])) == (not pair.clear)
            assert (pair.second in tied_with(pair.first, ranks)) == (not pair.clear)
        assert 1 in ranks["a"]


def test_many_optimisers_that_are_all_tied_are_ranked_at_once():
    names = [str(k) for k in range(40)]
    pairs = [Pair(a, b, 1, 1) for i, a in enumerate(names) for b in names[i + 1 :]]
    assert rank(names, pairs) == {name: [1] for name in names}


def test_where_one_run_is_exact_any_difference_ranks():
    losses = {"a": 1.0, "b": 1.0, "c": 2.0, "d": INF}
    assert rank(list(losses), exact(losses)) == {"a": [1], "b": [1], "c": [2], "d": [3]}


def test_spreads_take_diverged_runs_in():
    spread = spread_of([1.0, 2.0, 3.0, 4.0, INF])
    assert (spread.median, spread.p10, spread.p90) == (3, 1, INF)
    assert spread_of([INF, INF]).median == INF


def test_steps_to_the_target_count_a_run_that_never_gets_there_as_later_than_all():
    assert steps_to(0.5, [0, 10, 20], [1.0, 0.5, 0.1]) == 10
    assert steps_to(0.01, [0, 10, 20], [1.0, 0.5, INF]) is None
    assert median_steps([10, 20, None]) == 20
    assert median_steps([10, None, None]) is None


def evidence(losses, untuned=None, curves=None, convex=False):
    losses = {name: np.asarray(values, float) for name, values in losses.items()}
    untuned = losses if untuned is None else {name: np.asarray(v, float) for name, v in untuned.items()}
    flat = {name: np.repeat(values[:, None], 21, axis=1) for name, values in losses.items()}
    return Evidence(losses, untuned, flat if curves is None else curves, compare(losses), convex, False)


def verdicts(found):
    return {claim.text.split()[0]: claim.verdict for claim in judge(found)}


SPREAD = np.linspace(0.9, 1.1, 10)


def test_a_claim_that_one_beats_another_follows_the_paired_test():
    for better, verdict in ((0.5 * SPREAD, Verdict.SEEN), (2 * SPREAD, Verdict.NOT_SEEN), (SPREAD, Verdict.UNDECIDED)):
        found = verdicts(evidence({"Nesterov": better, "Momentum": SPREAD, "Nadam": better, "Adam": SPREAD}))
        assert found["Nesterov"] is verdict
        assert found["Nadam"] is verdict


def test_the_claim_on_losses_that_are_not_convex_is_left_open_on_a_convex_one():
    losses = {"RMSProp": 0.5 * SPREAD, "AdaGrad": SPREAD}
    assert verdicts(evidence(losses))["RMSProp"] is Verdict.SEEN
    assert verdicts(evidence(losses, convex=True))["RMSProp"] is Verdict.UNDECIDED


def test_adagrad_is_fast_then_slow_if_it_leads_early_and_its_lead_shrinks():
    losses = {"AdaGrad": SPREAD, "SGD": SPREAD, "Adam": SPREAD}
    others = np.ones((10, 21)) * SPREAD[:, None]
    for early, late, verdict in ((0.3, 2, Verdict.SEEN), (3, 4, Verdict.NOT_SEEN), (0.3, 0.1, Verdict.NOT_SEEN)):
        curve = others * np.linspace(early, late, 21) if early < 1 or late > 1 else others
        found = verdicts(evidence(losses, curves={"AdaGrad": curve, "SGD": others, "Adam": others}))
        assert found["AdaGrad"] is verdict, (early, late)


def test_adadelta_does_without_a_tuned_rate_if_untuned_it_ends_within_twice_its_tuned_loss():
    for factor, verdict in ((1.2, Verdict.SEEN), (5.0, Verdict.NOT_SEEN)):
        found = evidence({"AdaDelta": SPREAD}, untuned={"AdaDelta": factor * SPREAD})
        assert verdicts(found)["AdaDelta"] is verdict


def test_a_claim_on_optimisers_that_did_not_race_is_undecided_and_says_so():
    for claim in judge(evidence({"SGD": SPREAD})):
        assert claim.verdict is Verdict.UNDECIDED
        assert "Not raced" in claim.because
