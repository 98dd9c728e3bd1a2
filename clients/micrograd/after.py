"""A classifier of two moons' kind, trained by micrograd."""

import random

from micrograd.nn import MLP

import fallline as fl

random.seed(1)
points = [(random.uniform(-1, 1), random.uniform(-1, 1)) for _ in range(30)]
labels = [1 if x * y > 0 else -1 for x, y in points]
model = MLP(2, [8, 1])
opt = fl.SGD(0.5)

for _ in range(40):
    loss = sum((1 - label * model(point)).relu() for point, label in zip(points, labels)) / len(points)
    model.zero_grad()
    loss.backward()
    for p, d in zip(model.parameters(), opt.update([p.grad for p in model.parameters()])):
        p.data += d
print(loss.data)
