"""A program: steps of every rule on arrays divided among four devices, and on one; says where they differ."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fallline as fl
from fallline.optax import transform

MESH = Mesh(np.array(jax.devices()), ("d",))
SPECS = {"W": PartitionSpec("d", None), "b": PartitionSpec()}


def shard(tree):
    return {path: jax.device_put(array, NamedSharding(MESH, SPECS[path])) for path, array in tree.items()}


def arrays(seed):
    rng = np.random.default_rng(seed)
    return {"W": rng.standard_normal((64, 6)).astype(np.float32), "b": rng.standard_normal(6).astype(np.float32)}


def check(name, opt, sums):
    tx = transform(opt)

    def step(carry, grads):
        updates, state = tx.update(grads, carry[1], carry[0])
        return optax.apply_updates(carry[0], updates), state

    there, here = shard(arrays(0)), {path: jnp.asarray(array) for path, array in arrays(0).items()}
    many, one = (there, tx.init(there)), (here, tx.init(here))
    for tree in many[1].slots.values():
        assert tree["W"].sharding.spec == SPECS["W"], f"{name}: state is not divided as its leaf"
    compiled = jax.jit(step).lower(many, shard(arrays(1))).compile()
    text, alone = compiled.as_text(), jax.jit(step)
    for op in ("all-gather", "all-to-all", "collective-permute", *(() if sums else ("all-reduce",))):
        assert f"{op}(" not in text, f"{name} has {op}"
    for seed in range(1, 5):
        many, one = compiled(many, shard(arrays(seed))), alone(one, arrays(seed))
        assert many[0]["W"].sharding.spec == SPECS["W"]
    assert ("all-reduce(" in text) == sums, f"{name}: all-reduce where there are no sums"
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        if sums:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=name)
        else:
            assert np.array_equal(a, b), f"{name} has other bits"


for name in sys.argv[1:] or [name for name, cls in fl.OPTIMIZERS.items() if not cls.rule.whole_leaf]:
    opt = fl.OPTIMIZERS[name]()
    check(name, opt, bool(opt._chain.updating.readings))
check("a chain", fl.chain(fl.clip_norm(0.5), fl.AdamW(1e-2), fl.average(0.9)), sums=True)
print("the same")
