"""Dialects take the steps of the libraries of their names, on the same gradients, with settings at random."""

from __future__ import annotations

import numpy as np
import pytest
from reliability.dialects import SINGLE, cases, strays

from needed import need

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras
NEEDS = {"torch": ["torch"], "keras": ["torch", "keras"], "optax": ["jax", "optax"]}
CASES = [case for case in cases() if case.library in NEEDS]  # TensorFlow's: by published values, and in the docs' table
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def need_library(case):
    for name in NEEDS[case.library]:
        need(name)


@pytest.mark.parametrize("size", [1.0, 1e-4])
@every_case
def test_a_dialect_takes_the_steps_of_its_library(case, size):
    need_library(case)
    assert strays(case, size) <= case.farther[0]


def test_vectors_are_stepped_as_there_by_what_is_for_matrices():
    need("torch")
    for case in CASES:
        if case.name == "Adafactor":
            assert strays(case, 1.0, shape=(100,)) <= 1e-11


@every_case
def test_so_it_does_in_float32(case):
    need_library(case)
    assert strays(case, 1.0, dtype=np.float32) <= (0.1 if case.name == "Muon" else SINGLE)  # in bfloat16 there


@pytest.mark.parametrize("case", [
    case for case in CASES if case.flags is None and str(case) != "torch.Rprop"], ids=str)  # whose lr only starts
def test_a_rate_that_changes_counts_as_there(case):
    need_library(case)
    assert strays(case, 1.0, scheduled=True) <= case.farther[0]
