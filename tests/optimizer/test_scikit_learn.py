"""An optimizer is a parameter of a scikit-learn estimator as others are: cloned, tuned by `optimizer__lr`, printed."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl

base = pytest.importorskip("sklearn.base")
selection = pytest.importorskip("sklearn.model_selection")
OPTIMIZERS = [lambda: fl.Adam(0.01), lambda: fl.chain(fl.clip_norm(1.0), fl.SGD(0.01)),
              lambda: fl.dialects.torch.Adam(0.01, (0.5, 0.9), amsgrad=True),
              lambda: fl.partition({"all": fl.SGD(0.01)}, lambda path: "all")]  # fmt: skip


class Line(base.RegressorMixin, base.BaseEstimator):
    def __init__(self, optimizer, steps=40):
        self.optimizer, self.steps = optimizer, steps

    def fit(self, X, y):
        run = fl.descend(lambda w: (0.0, X.T @ (X @ w - y) / len(y)), np.zeros(X.shape[1]), self.optimizer.fresh(),
                         steps=self.steps, progress=False)  # fmt: skip
        self.coef_ = run.params
        return self

    def predict(self, X):
        return X @ self.coef_


@pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: repr(make()))
def test_a_search_finds_the_rate_and_leaves_the_optimizer_alone(make):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    optimizer = make()
    optimizer.step(np.ones(3), np.ones(3))
    before = optimizer.state_dict()
    (name,) = [name for name in optimizer.get_params() if name.split(".")[-1] == "lr"]
    search = selection.GridSearchCV(Line(optimizer), {f"optimizer__{name}": [1e-6, 0.1]}, cv=3)
    search.fit(X, X @ np.array([1.0, -2.0, 0.5]))
    assert search.best_params_ == {f"optimizer__{name}": 0.1}
    np.testing.assert_equal(optimizer.state_dict(), before)
    assert base.clone(optimizer).t == 0
    assert repr(base.clone(optimizer)) == repr(optimizer)
    assert repr(optimizer)[:20] in repr(Line(optimizer))


def test_unknown_names_are_refused_and_nothing_is_set():
    opt = fl.Adam(0.1)
    with pytest.raises(KeyError, match="no hyper-parameter 'rate'"):
        opt.set_params(lr=0.5, rate=1.0)
    assert opt.lr == 0.1
