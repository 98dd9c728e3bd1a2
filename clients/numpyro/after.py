"""A posterior by variational inference, whose optimizer numpyro runs inside jit."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import fallline as fl

x = jnp.linspace(-1, 1, 40)
y = 1.0 - 2.0 * x + 0.3 * jax.random.normal(jax.random.key(0), (40,))


def line(x, y):
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(a + b * x, 0.3), obs=y)


guide = AutoNormal(line)
svi = SVI(line, guide, fl.optax.transform(fl.dialects.optax.adam(0.02)), Trace_ELBO(num_particles=8))
found = svi.run(jax.random.key(1), 1000, x, y, progress_bar=False)
print(*(found.params[f"{name}_auto_{of}"] for name in "ab" for of in ("loc", "scale")))
