"""Whatever carried an optimizer, its state or its file elsewhere: it is whole there, writes nothing but what is its
own, and goes on to the bit.

A way to carry joins by a row in WAYS, an optimizer by one in CARRIED.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cloudpickle
import joblib
import numpy as np
import pytest

import fallline as fl
from needed import need
from support import RECIPES, a_tree, everything_of, halving, same_bits, walk

pytestmark = pytest.mark.slow

CARRIED = {
    **RECIPES,
    "accumulate": lambda **o: fl.accumulate(3, RECIPES["clipped"](), **o),
    "accumulate around a partition": lambda **o: fl.accumulate(2, RECIPES["partition"](), **o),
    "schedules of several": lambda **o: fl.Adam(
        fl.schedules.cosine(0.1, steps=20, warmup=3), beta1=fl.schedules.linear(0.9, steps=20, end=0.5), **o),
    "counted": lambda **o: fl.SGD({"a": halving, "b": fl.schedules.step(0.1, every=2)}, **o),
}
every_carried = pytest.mark.parametrize("recipe", CARRIED)


# ---- ways: of anything that pickle takes; what comes back, and a picture of the memory or files that brought it ------


def in_one_stream(protocol):
    def way(thing, folder):
        content = pickle.dumps(thing, protocol=protocol)
        return pickle.loads(content), lambda: content
    return way


def out_of_band(kind):
    """Arrays travel as buffers beside the stream; `kind` makes of each the memory that is handed to the reader."""
    def way(thing, folder):
        buffers = []
        content = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
        brought = [kind(buffer.raw()) for buffer in buffers]
        return pickle.loads(content, buffers=brought), lambda: [bytes(buffer) for buffer in brought]
    return way


def by_joblib(mmap_mode=None, compress=0):
    def way(thing, folder):
        path = folder / "thing.joblib"
        joblib.dump(thing, path, compress=compress)
        return joblib.load(path, mmap_mode=mmap_mode), path.read_bytes
    return way


def by_memory(mmap_mode=None):
    def way(thing, folder):
        memory = joblib.Memory(folder / "memory", mmap_mode=mmap_mode, verbose=0)
        kept = memory.cache(given_back, ignore=["thing"])
        kept(thing, 0)
        brought = kept(thing, 0)  # the second time it comes from the files
        return brought, lambda: [path.read_bytes() for path in sorted((folder / "memory").rglob("output.pkl"))]
    return way


def given_back(thing, key):
    return thing


def by_cloudpickle(thing, folder):
    content = cloudpickle.dumps(thing)
    return cloudpickle.loads(content), lambda: content


def by_copy(copied):
    return lambda thing, folder: (copied(thing), lambda: None)


def by_torch(mmap):
    def way(thing, folder):
        torch = need("torch")
        path = folder / "thing.pt"
        torch.save(thing, path)
        return torch.load(path, weights_only=False, mmap=mmap), path.read_bytes
    return way


WAYS = {
    "copy": by_copy(copy.copy),
    "deepcopy": by_copy(copy.deepcopy),
    **{f"pickle {protocol}": in_one_stream(protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    "buffers out of band, read-only": out_of_band(bytes),
    "buffers out of band, that can be written": out_of_band(bytearray),
    "buffers out of band, as they lie": out_of_band(lambda raw: raw),
    "cloudpickle": by_cloudpickle,
    "joblib": by_joblib(),
    "joblib, compressed": by_joblib(compress=3),
    **{f"joblib, mmap_mode={mode}": by_joblib(mode) for mode in ("r", "r+", "w+", "c")},
    "joblib.Memory": by_memory(),
    **{f"joblib.Memory, mmap_mode={mode}": by_memory(mode) for mode in ("r", "r+", "c")},
}
OF_TORCH = {"torch.save": by_torch(False), "torch.save, mmap": by_torch(True)}
TURNS = list(itertools.product(("native", "reference"), (4, 1, 0, 7)))  # the engine and the step at which each is cut


def begun(recipe, engine, cut):
    opt, w = CARRIED[recipe](engine=engine, nonfinite="skip"), a_tree(100)
    walk(opt, w, range(cut))
    opt.step(w, {"a": np.full(4, np.nan), "b": np.zeros((2, 3))})  # skipped, and counted
    return opt, w


def assert_goes_on(other, v, opt, w, cut, brought, steps=20):
    """It goes on from where `opt` is by now, which took two steps since; what brought it stays as it is."""
    before = brought()
    walk(other, v, range(cut, cut + steps))
    walk(opt, w, range(cut + 2, cut + steps))
    assert same_bits(v, w)
    assert everything_of(other) == everything_of(opt)
    assert (other.t, other.calls, other.skipped, repr(other)) == (opt.t, opt.calls, opt.skipped, repr(opt))
    assert brought() == before


@every_carried
@pytest.mark.parametrize("carriers", ["here", "torch"])
def test_an_optimizer_goes_on_whatever_carried_it(recipe, carriers, tmp_path):
    ways = WAYS if carriers == "here" else OF_TORCH
    for (name, way), (engine, cut) in zip(ways.items(), itertools.cycle(TURNS)):
        opt, w = begun(recipe, engine, cut)
        v = copy.deepcopy(w)
        (tmp_path / name).mkdir()
        other, brought = way(opt, tmp_path / name)
        walk(opt, w, range(cut, cut + 2))
        assert_goes_on(other, v, opt, w, cut, brought)


@every_carried
@pytest.mark.parametrize("carriers", ["here", "torch"])
def test_a_state_dictionary_is_taken_over_whatever_carried_it(recipe, carriers, tmp_path):
    ways = WAYS if carriers == "here" else OF_TORCH
    for (name, way), (engine, cut) in zip(ways.items(), itertools.cycle(TURNS)):
        opt, w = begun(recipe, engine, cut)
        waits, knows = (CARRIED[recipe](engine=engine, nonfinite="skip") for _ in range(2))
        walk(knows, a_tree(3), range(2))  # one that knows its leaves takes a state over in another way
        (tmp_path / name / "again").mkdir(parents=True)
        d, brought = way(opt.state_dict(), tmp_path / name)
        before = brought()
        for other in (waits, knows):
            other.load_state_dict(d)
        again, _ = way(waits, tmp_path / name / "again")  # while the state waits for the first step
        taken = [(other, copy.deepcopy(w)) for other in (waits, knows, again)]
        walk(opt, w, range(cut, cut + 10))
        for other, v in taken:
            walk(other, v, range(cut, cut + 10))
            assert same_bits(v, w)
            assert everything_of(other) == everything_of(opt)
        assert brought() == before


@every_carried
def test_a_file_is_read_and_never_written_by_the_optimizer_that_comes_of_it(recipe, tmp_path):
    opt, w = begun(recipe, "auto", 4)
    path = tmp_path / "run.safetensors"
    opt.save(path, w)
    other = CARRIED[recipe](nonfinite="skip")
    v = other.load(path)
    walk(opt, w, range(4, 6))
    assert_goes_on(other, v, opt, w, 4, path.read_bytes)


def test_an_optimizer_goes_on_in_a_pool_of_processes_and_back(tmp_path):
    """Both with pickle and with joblib, which hands large arrays to its workers as maps of files that are read-only."""
    starts = {recipe: begun(recipe, "auto", 4) for recipe in CARRIED}
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        theirs = list(pool.map(walked_on, starts.values()))
    found = joblib.Parallel(2, max_nbytes=100)(joblib.delayed(walked_on)(start) for start in starts.values())
    for (opt, w), *others in zip(starts.values(), theirs, found):
        walk(opt, w, range(4, 10))
        for other, v in others:
            assert same_bits(v, w)
            assert everything_of(other) == everything_of(opt)
            walk(other, v, range(10, 12))


def walked_on(start):
    opt, w = start
    w = {path: np.array(leaf) for path, leaf in w.items()}  # which may have come read-only
    walk(opt, w, range(4, 10))
    return opt, w


ELSEWHERE = {
    "numpy": lambda a: a.astype(np.float32),
    "torch": lambda a: need("torch").from_numpy(a.astype(np.float32)),
    "jax": lambda a: need("jax").numpy.asarray(a, "float32"),
}


@pytest.mark.parametrize("library", ELSEWHERE)
@pytest.mark.parametrize("recipe", ["Adam", "Prodigy", "Adan", "clipped", "partition", "accumulate"])
def test_state_of_another_library_is_carried_too(library, recipe, tmp_path):
    made = ELSEWHERE[library]
    ways = {**WAYS, **OF_TORCH} if library == "torch" else WAYS
    for name, way in ways.items():
        opt = CARRIED[recipe](engine="eager")
        w, *grads = ({path: made(leaf) for path, leaf in a_tree(seed).items()} for seed in range(9))
        for g in grads[:4]:
            w = opt.step(w, g)
        v = copy.deepcopy(w)
        (tmp_path / name).mkdir()
        other, brought = way(opt, tmp_path / name)
        before = brought()
        for g in grads[4:]:
            w = opt.step(w, g)
        for g in grads[4:]:
            v = other.step(v, g)
        assert all(same_bits(np.asarray(v[path]), np.asarray(w[path])) for path in w)
        assert everything_of(other) == everything_of(opt)
        assert brought() == before


def test_settings_by_coordinate_are_the_optimizers_own_wherever_they_came_from(tmp_path):
    lr = np.linspace(0.1, 0.2, 4)
    opt, w = fl.Adam({"a": lr, "b": 0.1}), a_tree(0)
    opt.step(w, a_tree(1))
    for name, way in WAYS.items():
        (tmp_path / name).mkdir()
        other, _ = way(opt, tmp_path / name)
        assert type(other.lr["a"]) is np.ndarray
        assert not isinstance(other.lr["a"].base, np.memmap)


def test_a_pickle_is_of_whole_steps_while_another_thread_steps():
    """Or the optimizer says that it is busy."""
    opt, w = RECIPES["partition"](), a_tree(0)
    g, stop = a_tree(1), threading.Event()

    def steps():
        while not stop.wait(1e-4):
            with contextlib.suppress(fl.BusyOptimizer):
                opt.step(w, g)

    thread = threading.Thread(target=steps)
    thread.start()
    pickles = []
    try:
        while len(pickles) < 50:
            with contextlib.suppress(fl.BusyOptimizer):
                pickles.append(pickle.dumps(opt))
    finally:
        stop.set()
        thread.join()
    twin, v, whole = RECIPES["partition"](), a_tree(0), 0
    for content in pickles:
        try:
            other = pickle.loads(content)
        except fl.BusyOptimizer:  # its parts are of different steps
            continue
        while twin.t < other.t:
            twin.step(v, g)
        assert everything_of(other) == everything_of(twin)
        whole += 1
    assert whole


@every_carried
def test_what_brought_an_optimizer_may_be_gone_afterwards(recipe, tmp_path):
    opt, w = begun(recipe, "auto", 4)
    buffers = []
    content = pickle.dumps(opt, protocol=5, buffer_callback=buffers.append)
    brought = [bytearray(buffer.raw()) for buffer in buffers]
    others = [pickle.loads(content, buffers=brought)]
    for mode in ("r", "c"):
        joblib.dump(opt, tmp_path / mode)
        others.append(joblib.load(tmp_path / mode, mmap_mode=mode))
    for buffer in brought:
        buffer[:] = b"\x55" * len(buffer)
    for mode in ("r", "c"):
        os.truncate(tmp_path / mode, 0)  # whoever reads the map now is ended
    points = [copy.deepcopy(w) for _ in others]
    walk(opt, w, range(4, 10))
    for other, v in zip(others, points):
        walk(other, v, range(4, 10))
        assert same_bits(v, w)
        assert everything_of(other) == everything_of(opt)


@pytest.mark.parametrize("way", ["deepcopy", "pickle 5", "cloudpickle", "joblib"])
def test_who_has_a_part_has_that_of_the_copy_too(way, tmp_path):
    opt, w = RECIPES["partition"](), a_tree(0)
    opt.step(w, a_tree(1))
    (other, part), _ = WAYS[way]((opt, opt.parts["rest"]), tmp_path)
    assert other.parts["rest"] is part
    part.lr = 0.25
    assert other.hyper["rest.lr"] == 0.25
    other.step(w, a_tree(2))
    assert part.t == other.t == 2
    with pytest.raises(fl.BusyOptimizer, match="part of a partition"):
        part.step(w, a_tree(2))


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("alone", [lambda part: part.fresh(), copy.copy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_part_of_a_chain_around_steps_by_itself_too(alone, engine):
    opt = fl.chain(fl.clip_norm(0.5), fl.partition({"x": fl.SGD(0.1)}, lambda path: "x"), engine=engine)
    part, twin = alone(opt.parts["x"]), fl.chain(fl.clip_norm(0.5), fl.SGD(0.1), engine=engine)
    w, v = a_tree(0), a_tree(0)
    for seed in range(5):
        part.step(w, a_tree(seed))
        twin.step(v, a_tree(seed))
    assert same_bits(w, v)
