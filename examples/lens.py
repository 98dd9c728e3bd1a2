"""A lens of a million pixels, designed by gradients, that focuses light into the shape of a nabla.

Light of one wavelength meets a plate of 1000 x 1000 pixels; glass delays it by half a wave. The paraxial wave equation,
solved by Fourier transforms, gives the light 50 mm behind the plate. Every step uses another wavelength and direction,
so the gradient, from the adjoint equation, is noisy.

python examples/lens.py [FOLDER [STEPS]]
"""

import sys
from pathlib import Path

import numpy as np
import scipy.fft as fft

import fallline as fl

folder, steps = Path(sys.argv[1] if len(sys.argv) > 1 else "lens"), int(sys.argv[2] if len(sys.argv) > 2 else 100)
folder.mkdir(exist_ok=True)

# ---- the equation and its adjoint ----

pixels, width, distance = 1000, 4e-6, 50e-3  # of 4 µm each
place = np.arange(pixels, dtype=np.float32) - pixels / 2
x, y = place[None, :], place[:, None]
across = fft.fftfreq(pixels, width).astype(np.float32) ** 2
frequencies = across[:, None] + across[None, :]
inside = (y > -220) & (abs(x) * 1.7 < 220 - y)  # a triangle that stands on its tip
hollow = (y > -180) & (abs(x) * 1.7 < 140 - y)
nabla = (inside & ~hollow).astype(np.float32)


def waves(rng):
    """How light of some wavelength arrives from some direction, and what becomes of it on its way."""
    wavelength, (a, b) = 0.5e-6 * rng.uniform(0.99, 1.01), rng.uniform(-2, 2, 2)
    arriving = np.exp(2j * np.pi / pixels * (a * x + b * y)).astype(np.complex64)
    return arriving, np.exp(-1j * np.pi * wavelength * distance * frequencies).astype(np.complex64)


def light(glass, arriving, way):
    """The waves at the plate and on the screen."""
    plate = arriving * np.exp(1j * np.pi * glass).astype(np.complex64)
    return plate, fft.ifft2(way * fft.fft2(plate))


def value_and_grad(glass, rng):
    """The share of the light that misses the nabla, and its gradient by each pixel of the plate."""
    arriving, way = waves(rng)
    plate, screen = light(glass, arriving, way)
    adjoint = fft.ifft2(way.conj() * fft.fft2(nabla * screen))
    missed = 1 - np.vdot(screen, nabla * screen).real / pixels**2
    return missed, (adjoint.conj() * plate).imag * np.float32(2 * np.pi / pixels**2)


# ---- the run ----


def draw(point):
    """Keep a picture of the plate at every tenth step."""
    if point.t % 10 == 0:
        np.save(folder / f"plate-{point.t:03}.npy", np.uint8(255 * point.params[::4, ::4]))


opt = fl.Adam(fl.schedules.cosine(0.05, steps=steps, warmup=10), eps=0)
run = fl.descend(
    value_and_grad, np.full((pixels, pixels), 0.5, np.float32), opt, steps=steps,
    bounds=(0, 1),
    batches=np.random.default_rng,  # of the number of the step: the noise of a step is the same after a kill
    callback=draw,
    columns={"decided": lambda point: np.mean((point.params == 0) | (point.params == 1))},
    history=folder / "history.csv",
    checkpoint=folder / "run.safetensors", checkpoint_every=10,
)  # fmt: skip
np.save(folder / "plate.npy", run.params)
print(run.message)
print(f"{run.values[0]:.0%} of the light missed at first, {run.values[-1]:.0%} at last")
