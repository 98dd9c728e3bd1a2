"""Draws docs/images/ten.gif, the ten on Rosenbrock's valley: python docs/images/ten.py

Each has the rate of the race's grid that goes down fastest (the lowest mean logarithm of the value along the way) among
those at which it stays in the picture, and never rises above where it began.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

import fallline as fl
from fallline.race.contenders.contender import TEN, contenders
from fallline.race.problems.surfaces import SURFACES

SURFACE, STEPS = replace(SURFACES["rosenbrock"], start=(-0.5, 2.5)), 300


def main() -> None:
    low, high = np.array(SURFACE.window).T
    chosen = {}
    for contender in contenders(TEN):
        given = {f"{rate:g}": contender.optimizer(rate) for rate in contender.tuned.grid().rates}
        tracks = fl.race.tracks(SURFACE, given, steps=STEPS)
        means = {}
        for rate, values in tracks.values.items():
            points = tracks.points[rate]
            if len(points) > STEPS and (values <= values[0]).all() and ((low <= points) & (points <= high)).all():
                means[rate] = np.log(np.maximum(values, SURFACE.target)).mean()
        rate = min(means, key=means.get)
        print(contender.name, rate)
        chosen[contender.name] = contender.optimizer(float(rate))
    fl.race.tracks(SURFACE, chosen, steps=STEPS).animate(Path(__file__).with_name("ten.gif"))


if __name__ == "__main__":
    main()
