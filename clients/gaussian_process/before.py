"""A Gaussian process with scikit-learn: its kernel's parameters by the marginal likelihood."""

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

rng = np.random.default_rng(0)
X = rng.uniform(0, 5, (40, 1))
y = np.sin(3 * X[:, 0]) + rng.normal(0, 0.1, 40)

kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
process = GaussianProcessRegressor(kernel).fit(X, y)
print(process.kernel_)
print(*process.kernel_.theta, process.log_marginal_likelihood_value_)
