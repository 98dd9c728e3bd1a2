"""A network of equinox, trained inside jit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

x = jnp.linspace(-1, 1, 64)
y = jnp.sin(3 * x)
model = eqx.nn.MLP("scalar", "scalar", 16, 2, activation=jnp.tanh, key=jax.random.key(0))


@eqx.filter_value_and_grad
def value_and_grad(model):
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


optimizer = optax.adam(1e-2)
state = optimizer.init(eqx.filter(model, eqx.is_array))


@eqx.filter_jit
def step(model, state):
    loss, grads = value_and_grad(model)
    updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state, loss


for _ in range(100):
    model, state, loss = step(model, state)
print(loss, *jax.vmap(model)(x[::16]))
