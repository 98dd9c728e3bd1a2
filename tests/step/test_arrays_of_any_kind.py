"""The short way over arrays of any layout, dtype and origin, and with leaves without a gradient."""

import pickle

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.trees import flatten
from needed import need
from short_way import long_way, spread
from support import COMPLEX, FULL, HALVES, every_precision, limits, normal

LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "spread": spread,
    "first axis sliced": lambda a: np.repeat(a, 2, axis=0)[::2],
    "axes turned": lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)) if a.ndim < 2 else np.moveaxis(
        np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "field of a record": lambda a: np.array(
        list(zip(a.ravel().tolist(), [7] * a.size)), [("a", a.dtype), ("b", "f8")])["a"].reshape(a.shape),
}  # fmt: skip
SPANS = [(5,), (1024,), (1025,), (3, 1), (1, 7), (7, 300), (3, 2, 5), (2, 1, 3, 4, 5), (200, 181), (40_001,)]


@pytest.mark.slow
@pytest.mark.parametrize("of_gradients", LAYOUTS)
@pytest.mark.parametrize("of_parameters", LAYOUTS)
def test_arrays_of_any_layout_take_the_short_way_and_get_the_bits_of_contiguous_ones(of_parameters, of_gradients,
                                                                                     monkeypatch):
    rng = np.random.default_rng(0)
    dtypes = ((FULL + HALVES) * 3)[: len(SPANS)]
    numbers = [rng.standard_normal(shape).astype(d) for shape, d in zip(SPANS, dtypes)]
    w, plain = [LAYOUTS[of_parameters](a.copy()) for a in numbers], [a.copy() for a in numbers]
    opts = [fl.Nadam(0.1, engine="native"), fl.Nadam(0.1, engine="reference")]
    targets = [[LAYOUTS[of_parameters](np.zeros_like(a)) for a in numbers], [np.zeros_like(a) for a in numbers]]
    for k in range(6):
        gs = [rng.standard_normal(shape).astype(d) for shape, d in zip(SPANS, dtypes)]
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            opts[0].step(w, [LAYOUTS[of_gradients](g) for g in gs])
            opts[0].update([LAYOUTS[of_gradients](g) for g in gs], out=targets[0])
            increments = opts[0].update([LAYOUTS[of_gradients](g) for g in gs])
        opts[1].step(plain, gs)
        opts[1].update(gs, out=targets[1])
        expected = opts[1].update(gs)
        for ours, theirs in ((w, plain), (targets[0], targets[1]), (increments, expected)):
            assert [a.tobytes() for a in ours] == [a.tobytes() for a in theirs], k
    if of_parameters == "spread":  # what lies between is untouched
        assert all(np.isnan(a.base.sum()) and np.count_nonzero(np.isnan(a.base)) == a.base.size - a.size for a in w)


@every_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_strided_gradient_is_checked_wherever_its_bad_number_stands(dtype, bad):
    opt, w = fl.SGD(1.0), np.zeros((181, 200), dtype)
    for _ in range(3):
        opt.step(w, np.ones((200, 181), dtype).T)
    for place in ((0, 0), (90, 100), (180, 199)):
        g = np.full((200, 181), limits(dtype).max, dtype).T
        g[place] = complex(1, bad) if dtype in COMPLEX else bad
        with pytest.raises(fl.NonFiniteGradient):
            opt.step(w, g)
    assert opt.t == 3
    assert (w == -3).all()


def test_leaves_without_a_gradient_take_the_short_way_and_count_for_themselves(monkeypatch):
    rng, results = np.random.default_rng(0), []
    present = rng.random((12, 5)) < 0.6
    gradients = rng.standard_normal((12, 5, 30))
    for engine in ("native", "reference"):
        opt, w = fl.Adam(0.1, engine=engine), {"W": [np.ones(30) for _ in range(4)], "b": np.ones(30)}
        for k, (there, gs) in enumerate(zip(present, gradients)):
            g = [a if is_there else None for a, is_there in zip(gs, there)]
            with monkeypatch.context() as patched:
                if k >= 4 and engine == "native":
                    patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
                opt.step(w, {"W": g[:4], "b": g[4]})
        results.append([a.tobytes() for a in (*w["W"], w["b"], opt.state["v"]["b"])])
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_take_the_short_way_and_autograd_hears_of_it(dtype, monkeypatch):
    torch = need("torch")
    kind = getattr(torch, dtype)
    w = {"W": torch.nn.Parameter(torch.ones(3, 4, dtype=kind)), "b": torch.ones(4, dtype=kind)}
    v = {"W": np.ones((3, 4), dtype), "b": np.ones(4, dtype)}
    tensors, arrays = fl.Adam(0.1), fl.Adam(0.1, engine="reference")
    for k in range(6):
        g = {"W": torch.full((4, 3), 0.5 + k, dtype=kind).T, "b": torch.full((4,), -1.0, dtype=kind)}
        versions = [p._version for p in w.values()]
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            assert tensors.step(w, g) is w
        arrays.step(v, {name: a.float().numpy().astype(dtype) for name, a in g.items()})
        assert all(p._version > old for p, old in zip(w.values(), versions))
        assert all(w[name].dtype is kind for name in w)
        assert all(np.array_equal(w[name].detach().float(), v[name].astype(np.float32)) for name in w)
    with pytest.raises(ValueError, match="must have the shape"):
        tensors.step(w, {"W": torch.ones(4, 3), "b": torch.ones(4)})


@pytest.mark.parametrize("call", ["step", "update", "out"])
def test_leaves_of_several_dtypes_keep_theirs_whatever_the_gradients_have(call):
    results = []
    for engine in ("native", "reference"):
        opt, w = fl.Adam(0.1, engine=engine), {"a": np.ones(4, np.float32), "b": np.ones(4)}
        opt.step(w, {"a": np.ones(4, np.float32), "b": np.ones(4)})
        out = {"a": np.ones(4, np.float32), "b": np.ones(4)}
        for k in range(5):
            g = {name: np.full(4, 1.0 + k, np.float32) for name in w}
            d = opt.step(w, g) if call == "step" else opt.update(g, out=out if call == "out" else None)
            assert (d["a"].dtype, d["b"].dtype) == (np.float32, np.float64)
            results.append((engine, d["a"].tobytes(), d["b"].tobytes(), opt.state["v"]["b"].tobytes()))
    assert [r[1:] for r in results[:5]] == [r[1:] for r in results[5:]]


def of_its_own_dtype(array):
    """The array as pickle brings it: with a dtype object of its own."""
    found = pickle.loads(pickle.dumps(array))
    if found.dtype is np.dtype(array.dtype.type):  # that of another library's numbers
        found = array.view(np.dtype(array.dtype.type, metadata={"an": "object of its own"}))
    assert found.dtype is not array.dtype
    assert found.dtype == array.dtype
    return found


@every_precision
@pytest.mark.parametrize("call", ["step", "update", "out"])
@pytest.mark.parametrize("pickled", ["parameters", "gradients", "both"])
def test_arrays_that_were_pickled_take_the_short_way(pickled, call, dtype, monkeypatch):
    w = np.ones((3, 4), dtype)
    opt, twin, v = fl.Adam(0.1), fl.Adam(0.1, engine="reference"), w.copy()
    w = w if pickled == "gradients" else of_its_own_dtype(w)
    out = np.empty_like(w)

    def increment(opt, w, g):
        if call == "step":
            return opt.step(w, g)
        return opt.update(g, out=out) if call == "out" and opt is not twin else opt.update(g)

    for k in range(6):
        g = normal(np.random.default_rng(k), (3, 4), dtype)
        with monkeypatch.context() as patched:
            if k >= 3:
                patched.setattr("fallline._optimizer.stepping.HostCall", long_way)
            found = increment(opt, w, g if pickled == "parameters" else of_its_own_dtype(g))
        assert found.tobytes() == increment(twin, v, g).tobytes()
    swapped = np.ones((3, 4), dtype).astype(dtype.newbyteorder())  # of an equal type too, but not of an equal dtype
    assert increment(opt, w, swapped).tobytes() == increment(twin, v, np.ones_like(v)).tobytes()


def test_where_objects_do_not_lie_in_memory_as_expected_there_is_no_short_way(monkeypatch):
    monkeypatch.setattr("fallline._engines.cpu.guard.readable", lambda: False)
    opt, w = fl.SGD(1.0), np.zeros(3)
    for _ in range(5):
        opt.step(w, np.ones(3))
    assert not opt._stepper.binding.plans.looks
    assert w.tolist() == [-5.0] * 3


@pytest.mark.needs("complex arrays")
@pytest.mark.parametrize("cls", fl.OPTIMIZERS.values(), ids=fl.OPTIMIZERS)
def test_any_number_of_threads_gives_the_same_bits(cls):
    rng = np.random.default_rng(0)
    sizes = [150_001, 1, 0, 16_384, 100_000, 100_003, 30_001, 100]
    dtypes = [np.float32, np.float32, *HALVES, *HALVES, *COMPLEX]
    start = [normal(rng, n, d) for n, d in zip(sizes, dtypes)]
    gradients = [[normal(rng, n, d) for n, d in zip(sizes, dtypes)] for _ in range(4)]
    results = []
    try:
        for threads in (1, 2, 3, 7):
            fl.set_num_threads(threads)
            opt, w = cls(), [a.copy() for a in start]
            for g in gradients:
                opt.step(w, g)
            results.append([a.tobytes() for a in w] + [a.tobytes() for a in flatten(dict(opt.state))[0]])
    finally:
        fl.set_num_threads(None)
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.parametrize("size", [5, 16_384, 16_385, 400_000])
@every_precision
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_wherever_it_stands_and_nothing_is_changed(size, dtype, bad):
    opt, w = fl.Adam(), np.ones(size, dtype)
    for _ in range(2):
        opt.step(w, np.ones(size, dtype))
    before = w.copy(), opt.state["m"].copy()
    largest = np.full(size, limits(dtype).max, dtype)
    for place in {0, size // 2, size - 1}:
        g = largest.copy()
        g[place] = complex(1, bad) if dtype in COMPLEX else bad
        with pytest.raises(fl.NonFiniteGradient):
            opt.step(w, g)
        with pytest.raises(fl.NonFiniteGradient):
            opt.update(g)
    assert opt.t == 2
    assert before[0].tobytes() == w.tobytes()
    assert before[1].tobytes() == opt.state["m"].tobytes()
