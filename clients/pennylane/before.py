"""The ground state of two coupled spins by a variational circuit, with PennyLane."""

import pennylane as qml
from pennylane import numpy as np

device = qml.device("default.qubit", wires=2)
hamiltonian = qml.Hamiltonian([1.0, 0.5, 0.5], [qml.Z(0) @ qml.Z(1), qml.X(0), qml.X(1)])


@qml.qnode(device)
def energy(params):
    for layer in params:
        qml.RY(layer[0], wires=0)
        qml.RY(layer[1], wires=1)
        qml.CNOT(wires=[0, 1])
    return qml.expval(hamiltonian)


params = np.array([[0.1, 0.2], [0.3, 0.4]], requires_grad=True)
opt = qml.AdamOptimizer(0.1)
for _ in range(100):
    params, cost = opt.step_and_cost(energy, params)
print(*params.ravel(), energy(params))
