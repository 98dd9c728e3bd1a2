"""The ground state of two coupled spins by a variational circuit, with tequila."""

import tequila as tq

import fallline as fl

circuit = tq.gates.Ry("a", 0) + tq.gates.Ry("b", 1) + tq.gates.CNOT(0, 1)
hamiltonian = tq.paulis.Z(0) * tq.paulis.Z(1) + 0.5 * tq.paulis.X(0)
energy = tq.ExpectationValue(U=circuit, H=hamiltonian)

slopes = {name: tq.compile(tq.grad(energy, name)) for name in ("a", "b")}
result = fl.minimize(tq.compile(energy), {"a": 1.0, "b": 1.0}, jac=lambda at: {name: slopes[name](at) for name in at},
                     method=fl.dialects.torch.Adam(0.1, eps=1e-7), options={"maxiter": 59})
print(result.fun)
