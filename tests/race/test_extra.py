"""The base install, without the extra `race`: all can be looked at, and what needs the extra says so when used."""

import pytest

import fallline as fl
from fallline.cli import COMMANDS
from support import run_alone

HIDDEN = """
import sys
for name in ("typer", "rich", "sklearn", "joblib", "plotly", "jinja2", "threadpoolctl"):
    sys.modules[name] = None
import fallline as fl
"""


def without_the_extra(script, *arguments):
    return run_alone(HIDDEN + script, *arguments)


def test_whatever_looks_at_the_package_finds_no_error():
    script = """
import doctest, inspect, io, contextlib, pydoc
assert hasattr(fl, "race") and "race" in dir(fl)
names = {}
exec("from fallline import *", names)
assert set(fl.__all__) <= set(names)
assert {"race", "schedules"} <= {name for name, _ in inspect.getmembers(fl)}
with contextlib.redirect_stdout(io.StringIO()):
    help(fl)
    help(fl.race)
for module in (fl, fl.race):
    pydoc.render_doc(module)
    doctest.DocTestFinder().find(module)
    [inspect.getdoc(getattr(module, name)) for name in dir(module)]
print(fl.race.run.__name__)
"""
    assert without_the_extra(script) == "run\n"


def test_a_race_says_what_to_install():
    script = """
bowl = fl.race.Problem([1.0, 2.0], lambda x: (x[0]**2 + x[1]**2, [2*x[0], 2*x[1]]))
try:
    fl.race.run(bowl)
except ImportError as error:
    print(error)
"""
    needed = "joblib, rich, jinja2, scikit-learn, threadpoolctl"
    assert without_the_extra(script) == f'The race needs {needed}: pip install "fallline[race]"\n'


@pytest.mark.slow
def test_the_command_tells_its_version_and_what_to_install():
    script = """
from fallline.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print(ended.code or 0)
"""
    assert without_the_extra(script, "--version") == f"fallline {fl.__version__}\n0\n"
    for arguments in ([], ["--help"]):
        said = without_the_extra(script, *arguments)
        assert "Usage: fallline COMMAND" in said
        assert all(f"  {name} " in said for name in COMMANDS)
        assert 'pip install "fallline[race]"' in said
        assert said.endswith("\n0\n")


def test_the_race_is_looked_at_without_a_heavy_import():
    script = """
assert hasattr(fl, "race")
heavy = {"scipy", "sklearn", "joblib", "rich", "typer", "plotly", "jinja2", "threadpoolctl", "torch", "jax", "pandas"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    assert run_alone("import sys\nimport fallline as fl" + script) == "[]\n"


def test_a_near_miss_of_a_public_name_is_told_what_is_meant():
    for name, meant in (
        ("Adagrad", "AdaGrad"), ("RMSprop", "RMSProp"), ("Adadelta", "AdaDelta"), ("Adamax", "AdaMax"),
        ("NAdam", "Nadam"), ("adam", "Adam"), ("sgd", "SGD"), ("ADAMW", "AdamW"), ("Nesterv", "Nesterov"),
        ("weightdecay", "weight_decay"), ("WeightDecay", "weight_decay"), ("clip", "clip_value or clip_norm"),
        ("clip_grad_norm_", "clip_norm"), ("clip_by_global_norm", "clip_norm"), ("clip_grad_value_", "clip_value"),
        ("optim", "OPTIMIZERS"), ("lr_scheduler", "schedules"), ("schedule", "schedules"), ("ema", "average"),
        ("minimise", "minimize"), ("ScheduleFreeAdam", "ScheduleFreeAdamW"),
    ):  # fmt: skip
        assert not hasattr(fl, name)
        with pytest.raises(AttributeError) as caught:
            getattr(fl, name)
        assert str(caught.value) == f"module 'fallline' has no attribute {name!r}. Did you mean {meant}?"
        assert caught.value.name == name
    for name in ("zebra", "_ipython_display_", "__wrapped__", "_adam"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'.$"):
            getattr(fl, name)


def test_every_name_that_is_suggested_is_there():
    for name in ("clip", "optim", "save", "lr_scheduler", "multi_transform", "masked", "fit", "swa", "heavy_ball"):
        with pytest.raises(AttributeError, match="Did you mean") as caught:
            getattr(fl, name)
        for suggested in str(caught.value).split("Did you mean ")[1].rstrip("?").split(" or "):
            owner = fl
            for part in suggested.split("."):
                owner = getattr(owner, part)


def test_an_unknown_optimiser_of_a_race_is_told_what_is_meant():
    for name, meant in (("Adamm", "Adam"), ("rms_prop", "RMSProp"), ("schedulefree_adamw", "ScheduleFreeAdamW")):
        with pytest.raises(ValueError, match=f"optimizers must be among .* Did you mean {meant}\\?"):
            fl.race.run("bowl", [name])
