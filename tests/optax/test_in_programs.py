"""In the programs that people of JAX write, a transformation steps as `opt.step` does outside `jit`, to the bit."""

import numpy as np
import pytest

import fallline as fl
from needed import need

STEPS = 20


@pytest.fixture(scope="module")
def jax():
    return need("jax")


@pytest.fixture(scope="module")
def transform():
    need("optax")
    from fallline.optax import transform

    return transform


@pytest.fixture(scope="module")
def data(jax):
    X = jax.random.normal(jax.random.key(0), (32, 3))
    return X, X @ jax.numpy.array([1.0, -2.0, 0.5]) + 0.3


def arrays_of(jax, tree):
    """The leaves of a tree of JAX, as arrays of NumPy that can be written."""
    return list(map(np.array, jax.tree.leaves(tree)))


def alone(jax, opt, start, grads):
    """The leaves of the parameters after steps outside `jit`, in NumPy's arrays, with these gradients."""
    params, opt = arrays_of(jax, start), opt.fresh()
    for g in grads:
        opt.step(params, arrays_of(jax, g))
    return params


def assert_same_bits(jax, tree, expected):
    found = arrays_of(jax, tree)
    assert [(a.shape, a.dtype, a.tobytes()) for a in found] == [(a.shape, a.dtype, a.tobytes()) for a in expected]


def mean_square(jax, predicted, y):
    return jax.numpy.mean((predicted - y) ** 2)


def test_a_plain_loop_over_haikus_trees_with_decay_by_path(jax, transform, data):
    X, y = data
    optax, jnp = need("optax"), jax.numpy
    params = {"net/~/linear_0": {"w": jnp.full((3, 4), 0.1, "float32"), "b": jnp.zeros(4)},
              "net/~/linear_1": {"w": jnp.ones((4, 1)), "b": jnp.zeros(1)}}

    def loss(params):
        first, last = params.values()
        return mean_square(jax, (jnp.tanh(X @ first["w"] + first["b"]) @ last["w"] + last["b"])[:, 0], y)

    opt = fl.AdamW(fl.by_path(lambda path: 0.1 if "linear_1" in path else 0.01),
                   weight_decay=fl.by_path(lambda path: 0.0 if path.endswith("b") else 0.1))
    own = fl.AdamW({path: {"w": lr, "b": lr} for path, lr in zip(params, (0.01, 0.1))},
                   weight_decay={path: {"w": 0.1, "b": 0.0} for path in params})
    tx = transform(opt)

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, grads

    start, state, expected = params, tx.init(params), jax.tree.map(np.array, params)
    for _ in range(STEPS):
        params, state, grads = step(params, state)
        own.step(expected, jax.tree.map(np.asarray, grads))
    assert_same_bits(jax, params, arrays_of(jax, expected))
    assert step._cache_size() == 1
    assert loss(params) < loss(start)
    assert int(state.count) == STEPS


@pytest.fixture(scope="module")
def of_flax(jax, data):
    """A network of flax with its parameters."""
    linen = need("flax.linen")
    net = linen.Sequential([linen.Dense(4), linen.tanh, linen.Dense(1)])
    return net, net.init(jax.random.key(1), data[0])


def test_a_train_state_of_flax_goes_on_from_its_bytes(jax, transform, data, of_flax):
    (X, y), (net, start) = data, of_flax
    train_state, serialization = need("flax.training.train_state"), need("flax.serialization")
    opt = fl.chain(fl.clip_value(0.5), fl.AdamW(fl.schedules.cosine(0.1, steps=STEPS), weight_decay=0.1))
    new = train_state.TrainState.create(apply_fn=net.apply, params=start, tx=transform(opt))

    @jax.jit
    def step(state):
        grads = jax.grad(lambda params: mean_square(jax, state.apply_fn(params, X)[:, 0], y))(state.params)
        return state.apply_gradients(grads=grads), grads

    state, seen = new, []
    for k in range(STEPS):
        if k == STEPS // 2:
            state = serialization.from_bytes(new, serialization.to_bytes(state))
        state, grads = step(state)
        seen.append(grads)
    assert_same_bits(jax, state.params, alone(jax, opt, start, seen))
    assert int(state.step) == int(state.opt_state[0]) == STEPS


def test_an_optimizer_of_nnx_trains_what_it_is_told_to(jax, transform, data):
    (X, y), nnx = data, need("flax.nnx")
    opt, rngs = fl.Nadam(0.05), nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs))
    optimizer, start = nnx.Optimizer(model, transform(opt), wrt=nnx.Param), nnx.state(model, nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: mean_square(jax, model(X)[:, 0], y))(model)
        optimizer.update(model, grads)
        return grads

    start = arrays_of(jax, start)
    seen = [step(model, optimizer) for _ in range(STEPS)]
    assert_same_bits(jax, nnx.state(model, nnx.Param), alone(jax, opt, start, seen))


def test_leaves_of_nnx_are_called_by_the_paths_of_their_parameters(jax, transform):
    nnx, seen = need("flax.nnx"), set()
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def label(path):
        seen.add(path)
        return "matrices" if path == "kernel" else "others"

    opt = fl.partition({"matrices": fl.AdamW(0.1, weight_decay=fl.by_path(lambda path: float(path == "kernel"))),
                        "others": fl.SGD(0.1)}, label)
    optimizer, params = nnx.Optimizer(model, transform(opt), wrt=nnx.Param), nnx.state(model, nnx.Param)
    grads = jax.tree.map(jax.numpy.ones_like, params)
    after = opt.step(params, grads)
    optimizer.update(model, grads)
    assert seen == {"kernel", "bias"}
    assert_same_bits(jax, nnx.state(model, nnx.Param), arrays_of(jax, after))


@pytest.mark.parametrize("kind", ["is_array", "is_inexact_array"])
def test_a_module_of_equinox_with_leaves_that_are_none(jax, transform, data, kind):
    (X, y), eqx = data, need("equinox")
    chosen, opt = getattr(eqx, kind), fl.chain(fl.l2(0.1), fl.AMSGrad(0.05))
    model = eqx.nn.MLP(3, "scalar", 4, 1, use_final_bias=False, key=jax.random.key(0))
    tx = transform(opt)

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(lambda model: mean_square(jax, jax.vmap(model)(X), y))(model)
        updates, state = tx.update(grads, state, eqx.filter(model, chosen))
        return eqx.apply_updates(model, updates), state, grads

    state, start, seen = tx.init(eqx.filter(model, chosen)), eqx.filter(model, chosen), []
    for _ in range(STEPS):
        model, state, grads = step(model, state)
        seen.append(grads)
    assert_same_bits(jax, eqx.filter(model, chosen), alone(jax, opt, start, seen))


def test_variational_inference_of_numpyro_under_its_own_scan(jax, transform):
    optax, numpyro = need("optax"), need("numpyro")
    infer, distributions, jnp = need("numpyro.infer"), numpyro.distributions, jax.numpy
    observed = 2.0 + jax.random.normal(jax.random.key(0), (50,))

    def model():
        mean = numpyro.sample("mean", distributions.Normal(0.0, 10.0))
        numpyro.sample("observed", distributions.Normal(mean, 1.0), obs=observed)

    def guide():
        at = numpyro.param("at", jnp.array(0.0))
        wide = numpyro.param("wide", jnp.array(1.0), constraint=distributions.constraints.positive)
        numpyro.sample("mean", distributions.Normal(at, wide))

    seeing = optax.GradientTransformation(lambda params: params, lambda grads, last, params=None: (grads, grads))
    opt = fl.AdaBelief(0.1)
    svi = infer.SVI(model, guide, optax.chain(seeing, transform(opt)), infer.Trace_ELBO(num_particles=4))
    new = svi.init(jax.random.key(1))
    start, _ = new.optim_state[1]

    @jax.jit
    def run(state):
        def step(state, _):
            state, _ = svi.update(state)
            return state, state.optim_state[1][1][0]
        return jax.lax.scan(step, state, None, 100)

    state, seen = run(new)
    by_step = [jax.tree.map(lambda g: g[k], seen) for k in range(100)]  # noqa: B023
    assert_same_bits(jax, state.optim_state[1][0], alone(jax, opt, start, by_step))
    found = svi.get_params(state)
    np.testing.assert_allclose(found["at"], observed.mean(), atol=0.1)  # exactly: mean of the data, 1/√50
    np.testing.assert_allclose(found["wide"], 50**-0.5, atol=0.05)


def test_a_rate_is_learnt_through_a_scan_of_steps_where_float64_is_off(jax, transform):
    optax, jnp, start = need("optax"), jax.numpy, np.array([3.0, -4.0], "float32")

    def after(lr):
        tx = transform(fl.chain(fl.l2(0.1), fl.Adam()), lr=lr)

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(w, state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, 10)
        return jnp.sum(w**2)

    steep = jax.jit(after)
    expected = (steep(0.11) - steep(0.09)) / 0.02
    found = jax.jit(jax.vmap(jax.grad(steep)))(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(found[0], expected, rtol=1e-3)
    np.testing.assert_allclose(jax.grad(after)(0.1), found[0], rtol=1e-5)


STRICT = {"debug_nans": True, "numpy_dtype_promotion": "strict", "numpy_rank_promotion": "raise",
          "check_tracer_leaks": True}  # fmt: skip


def test_where_jax_is_told_to_be_strict_nothing_is_amiss(jax, transform):
    w = {"a": jax.numpy.ones((3, 2)), "b": jax.numpy.ones(2)}
    own = {name: getattr(jax.config, f"jax_{name}") for name in STRICT}
    try:
        for name, value in STRICT.items():
            jax.config.update(f"jax_{name}", value)
        for opt in (fl.chain(fl.clip_norm(1.0), fl.SGD(fl.schedules.cosine(0.1, steps=9)), fl.average(0.9)),
                    fl.accumulate(2, fl.SGD(), nonfinite="skip")):  # fmt: skip
            tx = transform(opt)
            jax.block_until_ready(jax.jit(tx.update)(w, tx.init(w), w))
    finally:
        for name, value in own.items():
            jax.config.update(f"jax_{name}", value)


def test_numbers_and_float64_of_numpy_are_taken_as_jax_takes_them(jax, transform):
    optax, jnp = need("optax"), jax.numpy
    tx, given = transform(fl.Momentum(0.5)), {"a": 1.0, "b": np.ones(2), "c": 1j, "d": np.float64(1)}
    own = jax.tree.map(jnp.asarray, given)
    found, expected = (optax.apply_updates(w, tx.update(w, tx.init(w), w)[0]) for w in (given, own))
    assert_same_bits(jax, found, arrays_of(jax, expected))
    assert [str(leaf.dtype) for leaf in found.values()] == ["float32", "float32", "complex64", "float32"]
    with pytest.raises(TypeError, match=r"^parameter 'a' must be an array .* Got 1: pass float\(\.\.\.\)\.$"):
        tx.init({"a": 1})
