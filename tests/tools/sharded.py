"""A program: every rule under jit on arrays divided among four devices, beside the native engine on one."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fallline as fl
from fallline.optax import transform

MESH = Mesh(np.array(jax.devices()), ("d",))
EXPLICIT = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))  # part of the types of arrays
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

    there, alone = shard(arrays(0)), arrays(0)
    many = there, tx.init(there)
    for tree in many[1].slots.values():
        assert tree["W"].sharding.spec == SPECS["W"], f"{name}: state is not divided as its leaf"
    compiled = jax.jit(step).lower(many, shard(arrays(1))).compile()
    text = compiled.as_text()
    for op in ("all-gather", "all-to-all", "collective-permute"):
        assert f"{op}(" not in text, f"{name} has {op}"
    assert ("all-reduce(" in text) == sums, f"{name}: all-reduce is for sums"
    for seed in range(1, 5):
        many = compiled(many, shard(arrays(seed)))
        opt.step(alone, arrays(seed))
        assert many[0]["W"].sharding.spec == SPECS["W"]
    for found, expected in [(many[0], alone), *((many[1].slots[slot], opt.state[slot]) for slot in many[1].slots)]:
        for path in SPECS:
            if sums:
                np.testing.assert_allclose(found[path], expected[path], rtol=1e-5, atol=1e-7, err_msg=name)
            else:
                assert np.array_equal(found[path], expected[path]), f"{name} has other bits"


for name, cls in fl.OPTIMIZERS.items():
    if not cls.rule.whole_leaf:
        check(name, cls(), sums=bool(cls()._chain.updating.readings))
check("a chain", fl.chain(fl.clip_norm(0.5), fl.AdamW(1e-2), fl.average(0.9)), sums=True)
MESH = EXPLICIT
with jax.set_mesh(MESH):
    for name in ("Nesterov", "Adam", "Adan", "LAMB"):
        check(name, fl.OPTIMIZERS[name](), sums=name == "LAMB")
    check("rates by coordinate", fl.Adam(lr={"W": np.full((64, 6), 0.01), "b": 0.1}), sums=False)
    check("accumulate", fl.accumulate(2, fl.Adam()), sums=False)
print("the same")
