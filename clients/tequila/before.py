"""The ground state of two coupled spins by a variational circuit, with tequila."""

import tequila as tq

circuit = tq.gates.Ry("a", 0) + tq.gates.Ry("b", 1) + tq.gates.CNOT(0, 1)
hamiltonian = tq.paulis.Z(0) * tq.paulis.Z(1) + 0.5 * tq.paulis.X(0)
energy = tq.ExpectationValue(U=circuit, H=hamiltonian)

result = tq.minimize(energy, method="adam", lr=0.1, maxiter=60, initial_values={"a": 1.0, "b": 1.0}, silent=True)
print(result.energy)
