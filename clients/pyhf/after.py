"""Signal strength of a counting experiment in two bins, fitted with pyhf."""

import pyhf

import fallline as fl

model = pyhf.simplemodels.uncorrelated_background(signal=[12.0, 11.0], bkg=[50.0, 52.0], bkg_uncertainty=[3.0, 7.0])
data = [55.0, 60.0, *model.config.auxdata]

best, twice_nll = pyhf.infer.mle.fit(data, model, return_fitted_val=True, method=fl.Adam(0.05))
print(*best, twice_nll)
