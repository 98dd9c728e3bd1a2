"""The same bits whatever instructions the processor has: kernels compiled for less than this one, in processes of their
own."""

from __future__ import annotations

import platform

import pytest

import fallline as fl
from support import output_of, start_alone

pytestmark = pytest.mark.slow

DIGEST = """
import hashlib, sys
import llvmlite.binding as llvm
import ml_dtypes
import numpy as np

cpu, features, engine = sys.argv[1:]
if cpu:
    class Features(dict):
        def flatten(self):
            return features
    llvm.get_host_cpu_name, llvm.get_host_cpu_features = lambda: cpu, Features
import fallline as fl
from fallline._arrays.trees import flatten

def numbers(rng, dtype, strided):
    # scaled by powers of two, exactly: NumPy's own powers depend on the instructions that it chooses
    drawn = [np.ldexp(rng.standard_normal(n), rng.integers(-150, 66, n)) for n in (20_011, 7, 1)]
    matrix = rng.standard_normal((40, 30))
    drawn.append(matrix.T if strided else matrix)
    drawn[0][::13] = 0.0
    drawn[0][5::17] = -0.0
    with np.errstate(over="ignore"):
        drawn = [a.astype(dtype) for a in drawn]
    return [np.where(np.isfinite(a), a, np.ones_like(a)) for a in drawn]

for name, cls in fl.OPTIMIZERS.items():
    seen = hashlib.sha256()
    strided = name in ("Adam", "AdaDelta")  # the conversions and the ways through an array are no rule's
    for dtype in (np.float32, np.float64, *((np.float16, ml_dtypes.bfloat16) if strided else ())):
        rng = np.random.default_rng(0)
        lr = {} if hasattr(cls(), "lr") else {"lr": 0.1}
        own = cls(d0=1e6) if name == "Prodigy" else cls()  # not so far below the size of these parameters
        decay = [] if name.startswith("ScheduleFree") else [fl.weight_decay(0.1, **lr)]  # one point would stay
        opt = fl.chain(fl.l2(0.01), fl.clip_value(10.0), fl.clip_norm(1e3), own, *decay, engine=engine)
        w = numbers(rng, dtype, strided)
        for _ in range(6):
            with np.errstate(all="ignore"):
                opt.step(w, numbers(rng, dtype, strided))
        for a in (*w, *flatten(dict(opt.state))[0]):
            seen.update(np.where(np.isnan(a), 0, a).tobytes())
    print(name, seen.hexdigest())
"""

SETS = {
    "SSE2": ("x86-64", ""),
    "AVX2": ("haswell", "+avx2,+fma,+f16c,-avx512f"),
}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="instruction sets of x86")
def test_kernels_for_any_instruction_set_give_the_bits_of_numpy_with_and_without_those_that_it_chooses_at_run_time():
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    chosen = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    running = [start_alone(DIGEST, "", "", "reference"),
               start_alone(DIGEST, "", "", "reference", NPY_DISABLE_CPU_FEATURES=chosen),
               start_alone(DIGEST, "", "", "native"),
               *(start_alone(DIGEST, *target, "native") for target in SETS.values())]  # fmt: skip
    expected, *found = [output_of(process, timeout=300) for process in running]
    assert len(expected.splitlines()) == len(fl.OPTIMIZERS)
    assert found == [expected] * 4
