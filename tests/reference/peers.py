"""How each peer walks along given gradients from a start, and the settings that all of them take."""

from __future__ import annotations

import os

import numpy as np

from needed import need

LR, MOMENTUM, RHO, BETA1, BETA2, EPS = 2.0**-7, 0.875, 1 - 2.0**-6, 0.875, 1 - 2.0**-8, 2.0**-10
BETAS = {"beta1": BETA1, "beta2": BETA2}
LATE = 3000  # steps after which every correction that differs between definitions of Nadam has faded


def filled(like, value):
    """An array or tensor like the given one, filled with a value."""
    return like * 0 + value


def walk_torch(make, w, gradients, start=None):
    torch = need("torch")
    parameter = torch.tensor(w)
    optimizer = make(torch.optim, [parameter])
    if start is not None:
        optimizer.state[parameter] = {"step": torch.tensor(0.0), **start(parameter)}
    for g in gradients:
        parameter.grad = torch.tensor(g)
        optimizer.step()
        yield parameter.detach().numpy().copy()


def walk_optax(make, w, gradients, start=None):
    jax, optax = need("jax"), need("optax")
    with jax.enable_x64(True):
        parameter = jax.numpy.asarray(w)
        transform = make(optax)
        state = transform.init(parameter)
        if start is not None:
            state = (start(state[0], parameter), *state[1:])
        found = []
        for g in gradients:
            increment, state = transform.update(jax.numpy.asarray(g), state, parameter)
            parameter = optax.apply_updates(parameter, increment)
            found.append(np.asarray(parameter))
    yield from found


def walk_keras(make, w, gradients, start=None):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    need("torch")
    keras = need("keras")
    parameter = keras.Variable(w, dtype="float64")
    optimizer = make(keras.optimizers)
    optimizer.build([parameter])
    if start is not None:
        start(optimizer)
    for g in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g, dtype="float64")], [parameter])
        yield np.array(keras.ops.convert_to_numpy(parameter))


WALKS = {"torch": walk_torch, "optax": walk_optax, "keras": walk_keras}


def late(opt, t=LATE):
    opt.t = t
    return opt
