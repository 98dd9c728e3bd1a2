"""Whether a signal of strength 1 is excluded, by pyhf: several fits, some with the strength held."""

import pyhf

import fallline as fl

model = pyhf.simplemodels.uncorrelated_background(signal=[12.0, 11.0], bkg=[50.0, 52.0], bkg_uncertainty=[3.0, 7.0])
data = [55.0, 60.0, *model.config.auxdata]


class Adam(pyhf.optimize.scipy_optimizer):
    def minimize(self, *given, **options):
        return super().minimize(*given, do_stitch=True, method=fl.Adam(0.05), **options)


pyhf.set_backend("numpy", Adam())
print(pyhf.infer.hypotest(1.0, data, model))
