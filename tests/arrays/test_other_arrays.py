"""Arrays of other libraries: torch tensors in place through the native engine, JAX arrays through the eager one."""

import contextlib
import copy

import ml_dtypes
import numpy as np
import pytest

import fallline as fl
from closeness import assert_within, floor
from needed import need
from support import every_precision, limits, normal, state_dtype

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
every_optimiser = pytest.mark.parametrize("cls", fl.OPTIMIZERS.values(), ids=fl.OPTIMIZERS)


def a_run(cls, as_array, **options):
    """Parameters after ten steps over the same gradients, as NumPy arrays."""
    rng = np.random.default_rng(0)
    opt = cls(**options)
    w = {"W": as_array(rng.standard_normal((3, 4)).astype(np.float32)),
         "b": as_array(rng.standard_normal(4).astype(np.float32))}  # fmt: skip
    for _ in range(10):
        g = {"W": as_array(rng.standard_normal((3, 4)).astype(np.float32)),
             "b": as_array(rng.standard_normal(4).astype(np.float32))}  # fmt: skip
        w = opt.step(w, g)
    return {k: np.asarray(v) for k, v in w.items()}, opt


@every_optimiser
def test_torch_tensors_get_the_bits_of_numpy_arrays(cls):
    torch = need("torch")
    ours, _ = a_run(cls, np.array)
    theirs, opt = a_run(cls, torch.tensor)
    assert opt.engine.split(":")[0] == ("numpy" if cls.rule.whole_leaf else "native")
    for k in ours:
        assert ours[k].tobytes() == theirs[k].tobytes()


def as_eager(library, array):
    """An array of that library, of the same numbers and dtype."""
    if library == "jax":
        return need("jax.numpy").asarray(array)
    torch = need("torch")
    return torch.tensor(array.astype(np.float32)).bfloat16() if array.dtype == BFLOAT16 else torch.tensor(array)


def is_close_alone(cls, library):
    """Whether a rule is not promised to give the bits of NumPy's arrays: in JAX those that sum."""
    return library == "torch" or (not cls.rule.whole_leaf and bool(cls()._chain.stepping.readings))


@pytest.mark.slow
@pytest.mark.needs("other arrays")
@pytest.mark.parametrize(("cls", "library"), [
    pytest.param(cls, library, id=f"{library}-{name}") for name, cls in fl.OPTIMIZERS.items()
    for library in ("torch", "jax") if is_close_alone(cls, library)])  # fmt: skip
@every_precision
def test_the_eager_engine_keeps_within_its_stated_tolerances(cls, dtype, library):
    rng = np.random.default_rng(0)

    def numbers():
        return (normal(rng, 100, dtype) * (10.0 ** rng.integers(-6, 2, 100)).astype(dtype)).astype(dtype)

    with wide(library):
        w = numbers()
        v, eps = as_eager(library, w), float(limits(dtype).eps)
        of_state = float(limits(state_dtype(dtype)).eps)
        stepping, updating = cls(engine="eager"), cls(engine="eager")
        opt, other = cls(engine="reference"), cls(engine="reference")
        for _ in range(10):
            g = numbers()
            v = stepping.step(v, as_eager(library, g))
            assert_within("parameter", v, opt.step(w, g), eps, 1e-2)
            increment = updating.update(as_eager(library, g), params=as_eager(library, w))
            wanted = other.update(g, params=w)
            assert_within("increment", increment, wanted, eps, floor(cls, wanted))
            for slot in set(opt.state) - {"r"}:  # of which, a sum of either sign, little may be left
                array = opt.state[slot]
                assert_within("state", stepping.state[slot], array, of_state, floor(cls, array))
        assert stepping.engine.startswith("eager")
        assert increment.dtype == v.dtype
        assert str(v.dtype).removeprefix("torch.") == dtype.name


def wide(library):
    """JAX's switch for 64 bits, which is otherwise off."""
    if library != "jax":
        return contextlib.nullcontext()
    jax = need("jax")
    return jax.enable_x64(True)


@pytest.mark.parametrize("engine", ["native", "reference", "eager"])
def test_a_tensor_that_requires_grad_is_stepped_in_place_and_autograd_notices(engine):
    torch = need("torch")
    w = torch.ones(3, requires_grad=True)
    loss = (w * w).sum()
    before = w._version
    assert fl.SGD(0.5, engine=engine).step(w, torch.ones(3)) is w
    assert w.tolist() == [0.5] * 3
    assert w._version > before
    assert w.requires_grad
    assert w.grad_fn is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_torch_module_trains_by_its_named_parameters():
    torch = need("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    params = dict(model.named_parameters())
    x = torch.randn(64, 4)
    y = x[:, :1] * x[:, 1:2]
    opt, losses = fl.Adam(0.05), []
    for _ in range(100):
        loss = ((model(x) - y) ** 2).mean()
        model.zero_grad()
        loss.backward()
        opt.step(params, {name: p.grad for name, p in params.items()})
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_an_increment_is_of_the_gradients_library():
    torch, jnp = need("torch"), need("jax.numpy")
    assert torch.equal(fl.SGD(0.5).update(torch.ones(2)), torch.tensor([-0.5, -0.5]))
    increment = fl.SGD(0.5).update(jnp.ones(2))
    assert type(increment) is type(jnp.ones(2))
    assert increment.dtype == jnp.float32
    out = torch.empty(2)
    assert fl.SGD(0.5).update(torch.ones(2), out=out) is out
    assert out.tolist() == [-0.5, -0.5]
    with pytest.raises(TypeError, match="out cannot be written"):
        fl.SGD(0.5).update(jnp.ones(2), out=jnp.ones(2))


def test_a_jax_gradient_steps_numpy_parameters_in_place():
    jax = need("jax")
    w = np.ones(3, np.float32)
    assert fl.SGD(0.25).step(w, jax.grad(lambda v: (v * v).sum())(w)) is w
    assert w.tolist() == [0.5] * 3


def test_a_tensor_of_a_class_of_ones_own_is_a_tensor():
    torch = need("torch")

    class Own(torch.Tensor):
        pass

    w, g = torch.ones(3), torch.ones(3, requires_grad=True).as_subclass(Own)
    assert isinstance(fl.SGD(0.5).update(g), torch.Tensor)
    assert fl.SGD(0.5).step(w, g) is w
    assert w.tolist() == [0.5, 0.5, 0.5]
    own = w.as_subclass(Own)
    assert fl.SGD(0.5).step(own, g) is own
    assert w.tolist() == [0.0, 0.0, 0.0]


def test_a_jax_tracer_is_refused_with_what_runs_inside_jit():
    jax, opt = need("jax"), fl.SGD()
    answer = r"is a JAX tracer: .* cannot run inside jit.* Write fallline\.optax\.transform\(opt\) there, or call step"
    for call in (lambda w: opt.step(w, w), lambda w: opt.step({"a": np.ones(3)}, {"a": w}), opt.update):
        for traced in (jax.jit, jax.vmap, jax.grad):
            with pytest.raises(TypeError, match=answer):
                traced(call)(np.ones(3))
    assert opt.t == 0


def test_a_jax_array_that_was_donated_is_refused_by_name():
    jnp = need("jax.numpy")
    opt, w, gone = fl.SGD(0.5), jnp.ones(3), jnp.ones(3)
    gone.delete()
    for call in (lambda: opt.step(w, gone), lambda: opt.step(gone, w), lambda: opt.update([gone])):
        with pytest.raises(TypeError, match="is a deleted JAX array"):
            call()
    assert opt.t == 0


def test_jax_arrays_are_left_as_they_were():
    jnp = need("jax.numpy")
    w = jnp.ones(3)
    stepped = fl.SGD(0.5).step(w, jnp.ones(3))
    assert w.tolist() == [1.0] * 3
    assert stepped.tolist() == [0.5] * 3


def test_jax_arrays_pass_through_chains_with_settings_per_coordinate():
    jnp = need("jax.numpy")
    opt = fl.chain(fl.clip_value(0.5), fl.SGD(np.array([1.0, 2.0])), fl.weight_decay(0.5))
    assert opt.step(jnp.ones(2), jnp.ones(2)).tolist() == [1 - 0.5 - 0.5, 1 - 1.0 - 1.0]


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_non_finite_gradients_of_other_libraries_are_found(library):
    xp = need(library)
    array = xp.tensor if library == "torch" else xp.asarray
    opt = fl.Adam(0.1)
    w = {"a": array([1.0, 2.0]), "b": array([1.0])}
    w = opt.step(w, {"a": array([1.0, 1.0]), "b": array([1.0])})
    before = {k: np.asarray(v).copy() for k, v in w.items()}
    with pytest.raises(fl.NonFiniteGradient, match="a has 1 NaN and 1 infinite") as error:
        opt.step(w, {"a": array([float("nan"), float("inf")]), "b": array([1.0])})
    assert error.value.paths == ("a",)
    assert opt.t == 1
    assert all(np.array_equal(before[k], np.asarray(w[k])) for k in w)


def test_foreign_state_is_copied_with_its_optimizer():
    jnp = need("jax.numpy")
    opt = fl.Momentum(1.0)
    w = opt.step(jnp.zeros(2), jnp.ones(2))
    twin = copy.deepcopy(opt)
    assert opt.step(w, jnp.ones(2)).tolist() == twin.step(w, jnp.ones(2)).tolist()


def test_parameters_that_move_to_another_library_are_refused_by_name():
    opt = fl.SGD()
    opt.step(np.ones(3, np.float32), np.ones(3))
    with pytest.raises(TypeError, match="must be in host memory, as before"):
        opt.step(need("jax.numpy").ones(3), np.ones(3))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("cls", [fl.SGD, fl.Adam])
def test_arrays_of_another_library_than_the_state_is_of_are_refused_by_name_and_change_nothing(cls, library):
    jnp, array = need("jax.numpy"), need(library).ones(3, dtype=need(library).float32)
    opt, w = cls(), jnp.ones(3)
    w = opt.step(w, jnp.ones(3))
    before = opt.t, [bytes(np.asarray(a)) for a in opt.state.values()]
    for call, what in ((lambda: opt.update(array), "gradient"), (lambda: opt.step(array, w), "parameter"),
                       (lambda: opt.update(w, params=array), "parameter")):  # fmt: skip
        with pytest.raises(TypeError, match=f"the {what} must be of jax, as before. Got {library}'s .*reset"):
            call()
        assert (opt.t, [bytes(np.asarray(a)) for a in opt.state.values()]) == before
    assert isinstance(opt.step(w, array), type(w))  # a gradient of a parameter is taken over


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_eager_engine_refuses_a_parameter_given_twice(library):
    xp = need(library)
    w = xp.ones(3)
    with pytest.raises(ValueError, match="are the same memory"):
        fl.SGD(engine="eager").step([w, w], [xp.ones(3), xp.ones(3)])


@pytest.mark.parametrize("parameters", ["numpy", "torch", "jax.numpy"])
def test_settings_per_coordinate_may_be_arrays_of_any_library(parameters):
    torch, jax = need("torch"), need("jax.numpy")
    make = {"numpy": np.array, "torch": torch.tensor, "jax.numpy": jax.asarray}[parameters]
    of_16_bits = (torch.tensor([0.5, 0.25], dtype=torch.bfloat16), jax.asarray([0.5, 0.25], jax.bfloat16),
                  np.array([0.5, 0.25], BFLOAT16))  # fmt: skip
    for lr in (torch.tensor([0.5, 0.25]), jax.asarray([0.5, 0.25]), np.array([0.5, 0.25]), *of_16_bits):
        opt = fl.SGD({"a": lr, "b": 1.0})
        if not isinstance(lr, jax.ndarray):
            lr[...] = 7.0  # the caller's own
        w = opt.step({"a": make([0.0, 0.0]), "b": 0.0}, {"a": make([1.0, 1.0]), "b": 1.0})
        assert (w["a"].tolist(), w["b"]) == ([-0.5, -0.25], -1.0)
        other = fl.SGD()
        other.load_state_dict(opt.state_dict())
        assert repr(other) == repr(opt)
    assert fl.SGD(torch.tensor([1, 2])).update(np.ones(2)).tolist() == [-1.0, -2.0]


def test_what_may_be_parameters_in_place_of_settings_is_sent_to_step():
    torch, jax = need("torch"), need("jax")
    remedy = r"pass parameters to step: opt.step\(params, grads\)"
    for wrong in (torch.tensor([1.0, -1.0]), {"a": jax.numpy.asarray([1.0, -1.0])}):
        with pytest.raises(ValueError, match=rf"lr of SGD must be ≥ 0. Got -1.0 among .*\(parameters\? {remedy}\)"):
            fl.SGD(wrong)
    with pytest.raises(TypeError, match=remedy):
        fl.SGD(torch.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match=remedy):
        jax.jit(lambda w: fl.SGD({"a": w}).t)(np.ones(2))


def test_tensors_of_other_kinds_are_refused():
    torch = need("torch")
    lazy = torch.complex(torch.ones(3), torch.ones(3)).conj().imag
    with pytest.raises(TypeError, match=r"lazily negated view: call .resolve_neg\(\)"):
        fl.SGD().step(lazy, torch.ones(3))
    assert fl.SGD(1.0).step(torch.zeros(3), lazy).tolist() == [1.0] * 3
    with pytest.raises(TypeError, match="Got float8_e5m2"):
        fl.SGD().step(torch.ones(2).to(torch.float8_e5m2), torch.ones(2))
    with pytest.raises(TypeError, match="to_dense"):
        fl.SGD().step(torch.ones(2).to_sparse(), torch.ones(2))
    with pytest.raises(TypeError, match=r"engine='native' runs on arrays in host memory"):
        fl.SGD(engine="native").step(need("jax.numpy").ones(2), np.ones(2))
