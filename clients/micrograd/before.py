"""A classifier of two moons' kind, trained by micrograd."""

import random

from micrograd.nn import MLP

random.seed(1)
points = [(random.uniform(-1, 1), random.uniform(-1, 1)) for _ in range(30)]
labels = [1 if x * y > 0 else -1 for x, y in points]
model = MLP(2, [8, 1])

for _ in range(40):
    loss = sum((1 - label * model(point)).relu() for point, label in zip(points, labels)) / len(points)
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= 0.5 * p.grad
print(loss.data)
