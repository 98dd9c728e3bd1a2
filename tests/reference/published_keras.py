"""Values that Keras (3.15) publishes of its optimizers: keras/src/optimizers/*_test.py, test_single_step and
test_correctness_with_golden. They are of the formulas, whoever steps by these."""

import numpy as np

import fallline as fl

keras = fl.dialects.keras

# Parameters 1, 2, 3, 4 with gradients 1, 6, 7, 2.
AFTER_A_STEP = [
    (keras.SGD(0.5), [0.5, -1.0, -0.5, 3.0]),
    (keras.RMSprop(0.5), [-0.5811, 0.4189, 1.4189, 2.4189]),
    (keras.Adagrad(0.5), [0.5233, 1.5007, 2.5005, 3.5061]),
    (keras.Adadelta(0.5), [0.9993, 1.9993, 2.9993, 3.9993]),
    (keras.Adam(0.5), [0.5, 1.5, 2.5, 3.5]),
    (keras.AdamW(0.5), [0.4980, 1.4960, 2.494, 3.492]),
    (keras.Adamax(0.5), [0.5, 1.5, 2.5, 3.5]),
    (keras.Nadam(0.5), [0.4686, 1.4686, 2.4686, 3.4686]),
    (keras.Ftrl(0.5), [0.2218, 1.3954, 2.3651, 2.8814]),
    (keras.Lion(0.5), [0.5, 1.5, 2.5, 3.5]),
    (keras.Lamb(0.5), [-0.3693, 0.6306, 1.6306, 2.6306]),
]  # fmt: skip

# Of ten parameters, all 1 at first, the first and the last, after each of these gradients.
GRADIENTS = [np.full(10, 0.01), *[np.arange(1, 11) / 10] * 4]
AFTER_EACH_STEP = {
    "SGD": (lambda: keras.SGD(nesterov=True), [[0.9999, 0.9999], [0.9989, 0.9899], [0.9979, 0.9799], [0.9969, 0.9699],
                                               [0.9959, 0.9599]]),
    "RMSprop": (lambda: keras.RMSprop(centered=True), [[0.9967] * 2, [0.9933] * 2, [0.9908] * 2, [0.9885] * 2,
                                                       [0.9864] * 2]),
    "Adagrad": (lambda: keras.Adagrad(0.2, initial_accumulator_value=0.3, epsilon=1e-6),
                [[0.9963, 0.9963], [0.9604, 0.8209], [0.9251, 0.6891], [0.8903, 0.579], [0.856, 0.4825]]),
    "Adadelta": (lambda: keras.Adadelta(1.0, rho=0.8, epsilon=1e-6),
                 [[0.9978] * 2, [0.9947] * 2, [0.9915] * 2, [0.9882] * 2, [0.9849] * 2]),
    "Adam": (lambda: keras.Adam(amsgrad=True), [[0.999] * 2, [0.9982] * 2, [0.9974] * 2, [0.9965] * 2, [0.9955] * 2]),
    "AdamW": (lambda: keras.AdamW(1.0, weight_decay=0.5, epsilon=2),
              [[0.4998, 0.4998], [0.2486, 0.2382], [0.1223, 0.1003], [0.0586, 0.0258], [0.0263, -0.0159]]),
    "Adamax": (lambda: keras.Adamax(0.2, beta_1=0.85, beta_2=0.95, epsilon=1e-6),
               [[0.8, 0.8], [0.6827, 0.691], [0.5333, 0.5466], [0.368, 0.3848], [0.1933, 0.2126]]),
    "Nadam": (lambda: keras.Nadam(0.5, beta_1=0.5, beta_2=0.67, epsilon=1e-5),
              [[0.4281, 0.4281], [-0.1738, -0.1717], [-0.7115, -0.7084], [-1.2335, -1.2299], [-1.7492, -1.7454]]),
    "Ftrl": (lambda: keras.Ftrl(0.05, -0.2, 0.4, 0.05, 0.15, 0.01, 0.3),
             [[0.0, 0.0], [-0.0034, -0.0354], [-0.0078, -0.0685], [-0.0121, -0.0999], [-0.0164, -0.1299]]),
    "Lion": (lambda: keras.Lion(), [[0.999] * 2, [0.998] * 2, [0.997] * 2, [0.996] * 2, [0.995] * 2]),
}  # fmt: skip
