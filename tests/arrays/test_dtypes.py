"""The table of dtypes: what a row says is so, and a row that the native engine knows nothing of is told of."""

import pytest

from fallline._arrays.dtypes import DTYPES, LACKED, STEPPED, dtype_named, real
from needed import need
from support import run_alone


@pytest.mark.parametrize("row", DTYPES.values(), ids=STEPPED)
def test_a_row_agrees_with_the_dtypes_that_it_names(row):
    if row.name in LACKED:
        need("ml_dtypes")
    dtype = dtype_named(row.name)
    assert dtype.name == row.name
    assert real(dtype).itemsize == row.size
    assert dtype.itemsize == row.size * (2 if dtype.kind == "c" else 1)
    assert (row.real == row.name) == (dtype.kind != "c")
    assert {row.real, row.computed, row.kept} <= set(DTYPES)
    assert (dtype_named(row.kept).kind == "c") == (dtype.kind == "c")


def test_a_row_that_llvm_has_no_words_for_is_told_of_by_name():
    script = """
from fallline._arrays.dtypes import DTYPES, Dtype
DTYPES["made_up"] = Dtype("made_up", "made_up", 1, "float32", "float32", "M8")
try:
    import fallline._engines.llvm.numbers
except LookupError as error:
    print(error)
"""
    assert "says nothing of made_up" in run_alone(script)
