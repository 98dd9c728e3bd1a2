"""Draws docs/images/lens.png from what examples/lens.py left in a folder: python docs/images/lens.py FOLDER."""

import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

folder = Path(sys.argv[1])
there = runpy.run_path(str(Path(__file__).parents[2] / "examples/lens.py"))  # which finds the run through
plates = sorted(folder.glob("plate-*.npy"))
chosen = [plates[k] for k in (1, 2, -1)]
_, screen = there["light"](np.load(folder / "plate.npy"), *there["waves"](np.random.default_rng(0)))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.75), layout="constrained")
for ax, file in zip(axes, chosen):
    ax.imshow(np.load(file), cmap="gray", vmin=0, vmax=255, interpolation="none")
    ax.set_title(f"the plate at step {int(file.stem[-3:])}", fontsize=9)
axes[-1].imshow(abs(screen) ** 2, cmap="inferno", vmax=np.quantile(abs(screen) ** 2, 0.995))
axes[-1].set_title("the light 50 mm behind it", fontsize=9)
for ax in axes:
    ax.set_axis_off()
figure.savefig(Path(__file__).with_name("lens.png"), dpi=120, metadata={"Software": None})
