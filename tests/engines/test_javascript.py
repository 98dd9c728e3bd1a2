"""Optimizers written as JavaScript have NumPy's bits, in a real browser."""

import copy

import numpy as np
import pytest

import fallline as fl
from browser import evaluated
from fallline._browser.module import can_be_written, script
from fallline.dialects import every

EVERY = {**{name: cls() for name, cls in fl.OPTIMIZERS.items()},
         **{name: cls.usual() for name, cls in every().items()}}  # fmt: skip
WRITTEN = {name: opt for name, opt in EVERY.items() if can_be_written(opt)}
CHAINS = {
    "clipped, decayed, averaged": fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), fl.weight_decay(0.01), fl.average(0.9)),
    "within bounds": fl.chain(fl.clip_value(0.5), fl.Nadam(0.1), fl.bounds(-0.5, 0.5)),
    "uphill": fl.chain(fl.maximize(), fl.l2(0.1), fl.Momentum(0.01)),
    "own": fl.Optimizer(fl.rule(lambda g, x, t, m=0, last="x", *, lr=0.1, low=-2.0, turn=1.5: (
        -lr * fl.sign(m + g) / fl.sqrt(t) + fl.where(x > last, low * lr**turn, fl.exp(low) * fl.log(t + 1)) * g,
        fl.maximum(m, abs(g)) - fl.minimum(m, -g), x))),
}  # fmt: skip
# their scalars come from powers with exponents that are no whole numbers, or of logarithms, on which engines may differ
NEARLY = {"dialects.torch.NAdam", "own"}

RUN = """Object.fromEntries(Object.keys(rules).map((name) => {
  const optimizer = new Optimizer(name, {}, given.dtype).begin(given.x);
  let steps = 0;
  try {
    for (const g of given.gradients) { optimizer.step(g); steps += 1; }
  } catch (error) {
    if (!error.message.includes("too large")) throw error;
  }
  return [name, [steps, Array.from(optimizer.arrays.x), Array.from(optimizer.rest())]];
}))"""


def stepped(optimizer, x, gradients):
    """How many steps were taken before one was refused as too large for the dtype, the parameters and their rest."""
    optimizer, x, steps = copy.deepcopy(optimizer), x.copy(), 0
    try:
        for g in gradients:
            optimizer.step(x, g)
            steps += 1
    except ValueError as error:
        if "too large" not in str(error):
            raise
    return steps, x, optimizer.rest(x)


def some_gradients(rng, steps, size, dtype):
    scale = 10.0 ** rng.integers(-6, 2, (steps, size))
    gradients = (rng.standard_normal((steps, size)) + 0.3) * scale
    gradients[rng.random((steps, size)) < 0.1] = 0.0
    return gradients.astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("size", "steps"), [(8, 1000), (5003, 12)])
def test_every_rule_dialect_and_chain_has_the_bits_of_numpy_in_a_browser(dtype, size, steps):
    rng = np.random.default_rng(size)
    x, gradients = rng.standard_normal(size).astype(dtype), some_gradients(rng, steps, size, dtype)
    optimizers = WRITTEN | CHAINS
    found = evaluated(script(optimizers), RUN, {"dtype": dtype, "x": x.tolist(), "gradients": gradients.tolist()})
    assert list(found) == list(optimizers)
    for name, optimizer in optimizers.items():
        steps, *points = stepped(optimizer, x, gradients)
        assert found[name][0] == steps > 9, name
        for there, here in zip(found[name][1:], points):
            if name in NEARLY:
                np.testing.assert_allclose(np.array(there, dtype), here, rtol=1e-12 if dtype == "float64" else 1e-5)
            else:
                assert np.array(there, dtype).tobytes() == here.tobytes(), name


def test_what_cannot_be_written_says_why():
    left = set(EVERY) - set(WRITTEN)
    assert left == {name for name in EVERY if name.rpartition(".")[2] in ("Muon", "Adafactor")}
    cases = [(fl.Muon(), "Muon is a function of whole leaves"), (fl.accumulate(2, fl.SGD()), "it steps at some calls"),
             (fl.partition({"a": fl.SGD(), "b": fl.Adam()}, lambda path: "a"), "it has several parts"),
             (fl.Adam(lambda t: 0.1), "adam.lr must be a number"), (fl.Adam({"a": 0.1}), "adam.lr must be a number")]
    for optimizer, why in cases:
        with pytest.raises(ValueError, match=f"^mine cannot be written as JavaScript: {why}"):
            script({"mine": optimizer})


def test_settings_go_by_short_names_and_are_refused_as_in_python():
    asked = """[["lr", 0.5], ["adam.lr", 0.25], ["beta1", 1], ["lr", -1], ["lr", NaN], ["rate", 0.1], ["lr", "1"]].map(
      ([name, value]) => {
        try { return new Optimizer("Adam", {[name]: value}).numbers["adam.lr"]; }
        catch (error) { return error.message; }
      })"""
    assert evaluated(script({"Adam": fl.Adam(0.1)}), asked) == [
        0.5, 0.25, "beta1 must be in [0, 1). Got 1.", "lr must be ≥ 0. Got -1.", "lr must be ≥ 0. Got NaN.",
        "There is no setting rate. Known: lr, beta1, beta2, eps.", "lr must be ≥ 0. Got 1."]  # fmt: skip


def test_a_trajectory_goes_by_gradients_or_by_a_function_of_the_point():
    asked = """[trajectory("SGD", {lr: 0.5}, [1, 2], [[1, 1], [0, 2]]),
      trajectory("SGD", {}, [1], (x) => x, {steps: 2}),
      [[[1]], [[1, NaN]]].map((gradients) => {
        try { return trajectory("SGD", {}, [1, 2], gradients); } catch (error) { return error.message; }
      })]"""
    assert evaluated(script({"SGD": fl.SGD(0.5)}), asked) == [
        [[1, 2], [0.5, 1.5], [0.5, 0.5]], [[1], [0.5], [0.25]],
        ["A gradient must have 2 numbers. Got 1.", "Gradient not finite. Nothing changed."]]  # fmt: skip
