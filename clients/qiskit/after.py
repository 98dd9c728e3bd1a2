"""The ground state of the hydrogen molecule by VQE, with qiskit-algorithms."""

from qiskit.circuit.library import efficient_su2
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import VQE

import fallline as fl

hydrogen = SparsePauliOp.from_list(
    [("II", -1.0523732), ("IZ", 0.3979374), ("ZI", -0.3979374), ("ZZ", -0.0112801), ("XX", 0.1809312)])
ansatz = efficient_su2(2, reps=1, entanglement="linear")

optimizer = fl.Adam(0.1)
vqe = VQE(StatevectorEstimator(), ansatz, optimizer, initial_point=[0.1] * ansatz.num_parameters)
result = vqe.compute_minimum_eigenvalue(hydrogen)
print(result.optimal_value)
