"""What the tests beside this one say of `fallline.keras` holds on Keras's JAX back end, which takes another process;
and runs go from one back end to the other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fallline as fl
from needed import need_for_a_process
from of_keras import ON_TORCH, far, fit, needed, net, ours

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # within Keras

FOLDER = "FALLLINE_TEST_KERAS_FILES"  # where each finds what the other has saved
FILES = ["test_beside_keras.py", "test_of_ours.py", "test_on_jax.py"]


def everything(model):
    """All arrays of a model and of its optimizer, in float64."""
    return [np.asarray(v.numpy(), np.float64) for v in (*model.variables, *model.optimizer.variables)]


def nadam():
    """An optimizer whose state has numbers beside arrays."""
    return ours(fl.dialects.torch.NAdam(0.01))


if ON_TORCH:

    @pytest.mark.slow
    def test_it_is_the_same_on_jax(tmp_path):
        need_for_a_process("keras", "jax")
        model = fit(net(), nadam())
        model.save(tmp_path / "torch.keras")
        fit(model)
        np.savez(tmp_path / "expected.npz", *everything(model))
        files = [str(Path(__file__).with_name(name)) for name in FILES]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files]
        own = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4", FOLDER: str(tmp_path)}
        if os.environ.get("FALLLINE_TEST_ALL"):
            own["FALLLINE_TEST_ALL"] = "1"  # "rest" is of the run before, of which these tests are none
        run = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-10_000:]
        assert " passed" in run.stdout
        assert " skipped" not in run.stdout
        other = fit(net(1), nadam(), epochs=1)
        other.load_weights(tmp_path / "jax.weights.h5")
        assert far(everything(other), everything(model)) < 1e-5

else:

    def test_a_run_of_torch_goes_on():
        folder, keras = Path(os.environ[FOLDER]), needed()
        assert fl.keras.Optimizer  # imported, so that Keras finds it
        model = fit(keras.saving.load_model(folder / "torch.keras"))
        expected = np.load(folder / "expected.npz")
        found = [a if a.shape != (2,) else a.sum() for a in everything(model)]  # a number in two of float32
        assert far(found, expected.values()) < 1e-5
        model.save_weights(folder / "jax.weights.h5")

    def test_state_is_laid_out_over_devices_as_its_variable_is():
        keras, expected = needed(), fit(net(), ours(fl.Adam(0.01)), epochs=1).get_weights()
        distribution = keras.distribution
        layout = distribution.LayoutMap(distribution.DeviceMesh((1, 4), ("batch", "model")))
        layout[".*hidden.*kernel"] = None, "model"
        distribution.set_distribution(distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"))
        try:
            model = fit(net(), ours(fl.Adam(0.01)), epochs=1)
            spread = {v.path.partition("/")[2] for v in model.optimizer.variables if "model" in v.value.sharding.spec}
        finally:
            distribution.set_distribution(None)
        assert spread == {"net_hidden_kernel_m", "net_hidden_kernel_v"}
        assert far(model.get_weights(), expected) < 1e-6
