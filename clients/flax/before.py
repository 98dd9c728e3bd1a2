"""A network of flax, whose TrainState steps inside jit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

x = jnp.linspace(-1, 1, 64)[:, None]
y = jnp.sin(3 * x)
model = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(1)])
state = TrainState.create(
    apply_fn=model.apply,
    params=model.init(jax.random.key(0), x),
    tx=optax.adam(1e-2),
)


@jax.jit
def step(state):
    def loss(params):
        return jnp.mean((state.apply_fn(params, x) - y) ** 2)

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


for _ in range(100):
    state, value = step(state)
print(value, *state.apply_fn(state.params, x[::16])[:, 0])
