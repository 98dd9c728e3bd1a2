"""Dialects take the steps of the libraries of their names, on the same gradients, with settings at random."""

from __future__ import annotations

import pytest

from needed import need
from reliability.dialects import cases, strays

NEEDS = {"torch": ["torch"], "keras": ["torch", "keras"], "optax": ["jax", "optax"]}
every_case = pytest.mark.parametrize("case", list(cases()), ids=str)


def need_library(case):
    for name in NEEDS[case.library]:
        need(name)


@pytest.mark.parametrize("size", [1.0, 1e-4])
@every_case
def test_a_dialect_takes_the_steps_of_its_library(case, size):
    need_library(case)
    assert strays(case, size) <= case.bound


@pytest.mark.parametrize("case", [
    case for case in cases() if case.flags is None and str(case) != "torch.Rprop"], ids=str)  # whose lr only starts
def test_a_rate_that_changes_counts_as_there(case):
    need_library(case)
    assert strays(case, 1.0, scheduled=True) <= case.bound
