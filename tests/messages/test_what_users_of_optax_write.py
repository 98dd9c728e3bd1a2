"""What users of optax, flax and equinox write by habit is answered with the transformation that they mean."""

import pytest

import fallline as fl
from needed import need
from support import run_alone

MEANT = r"takes fallline\.optax\.transform\(opt\)\.$"


@pytest.fixture(scope="module")
def optax():
    return need("optax")


def said_of(name):
    with pytest.raises(AttributeError) as caught:
        getattr(fl.optax, name)
    return str(caught.value).partition(f"Known: {', '.join(fl.optax.__all__)}. ")[2]


def test_optaxs_names_and_ours_are_answered_with_a_call_that_works(optax):
    for name in (*fl.dialects.optax.__all__, *fl.OPTIMIZERS, *map(str.lower, fl.OPTIMIZERS)):
        answer = said_of(name)
        assert answer.startswith("Write fallline.optax.transform(fallline."), name
        call = answer.removeprefix("Write ").removesuffix(".").replace("...", "1e-3" if "dialects" in answer else "")
        assert isinstance(eval(call, {"fallline": fl}), optax.GradientTransformation), call


def test_what_optax_has_itself_is_named_and_slips_are_noticed(optax):
    for name in ("chain", "clip_by_global_norm", "MultiSteps", "apply_updates", "GradientTransformation"):
        assert said_of(name).startswith(f"optax has it: optax.{name}, "), name
    assert said_of("transfrom") == "Did you mean transform?"
    assert said_of("nothing_of_the_kind") == ""


def test_an_optimizer_in_the_place_of_a_transformation_names_what_makes_one(optax):
    opt = fl.Adam()
    for call in (lambda: optax.chain(optax.clip(1.0), opt), lambda: optax.MultiSteps(opt, 4),
                 lambda: optax.masked(opt, True), lambda: optax.partition({"a": opt}, "a"), lambda: opt.init(None),
                 lambda: optax.inject_hyperparams(fl.Adam)(lr=0.1).init(1.0)):  # fmt: skip
        with pytest.raises(AttributeError, match=MEANT):
            call()
    with pytest.raises(TypeError, match=r"order, write fallline\.optax\.transform\(opt\)\)\.$"):
        opt.update(1.0, None, 1.0)
    with pytest.raises(AttributeError, match=r"fallline\.optax\.transform\(opt\)\.$"):
        _ = fl.transform


def test_a_train_state_and_an_optimizer_of_nnx_get_the_same_answer():
    train_state, nnx = need("flax.training.train_state"), need("flax.nnx")
    with pytest.raises(AttributeError, match=MEANT):
        train_state.TrainState.create(apply_fn=None, params={}, tx=fl.Adam())
    with pytest.raises(AttributeError, match=MEANT):
        nnx.Optimizer(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), fl.Adam(), wrt=nnx.Param)


def test_what_is_no_optimizer_is_refused_with_what_to_pass(optax):
    for given, answer in (
        (optax.adam(1e-3), r"It is optax's, whose formulas fallline\.dialects\.optax has\.$"),
        (optax.adam, r"Got adam\. It is optax's, whose formula fallline\.dialects\.optax\.adam has\.$"),
        (fl.Adam, r"Got the class Adam\. Call it: Adam\(\)\.$"), ("adam", r"Got 'adam'\. Did you mean Adam\?$"),
        (fl.rules.adam, r"Write fallline\.Optimizer\(rule, lr=\.\.\.\)\.$"),
        (fl.clip_norm(1.0), r"It is a link of a chain: fallline\.chain\(fallline\.clip_norm\(\.\.\.\), "),
        (1e-3, r"Got 0\.001\.$"), (None, r"Got None\.$"), ([fl.SGD()], r"Got \[SGD\(lr=0\.001\)\]\.$"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"of a fallline optimizer, such as fallline\.Adam.*{answer}"):
            fl.optax.transform(given)
    with pytest.raises(TypeError, match=r"Write lr=\.\.\. in its place\.$"):
        fl.optax.transform(fl.Adam(), learning_rate=0.1)


def test_a_module_of_equinox_is_refused_with_the_call_that_filters_it(optax):
    eqx, jax = need("equinox"), need("jax")
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"Got .*: pass equinox\.filter\(model, equinox\.is_inexact_array\)\.$"):
        fl.optax.transform(fl.Adam()).init(model)
    fl.optax.transform(fl.Adam()).init(eqx.filter(model, eqx.is_inexact_array))


def test_without_optax_or_with_an_older_jax_it_says_what_to_install():
    caught = "try:\n    import fallline.optax\nexcept ImportError as error:\n    print(error)"
    said = run_alone(f"import sys; sys.modules['optax'] = None\n{caught}")
    assert said.startswith("fallline.optax is for training loops of JAX: pip install optax. (")
    older = "import sys, types; sys.modules |= {name: types.ModuleType(name) for name in ('jax', 'optax')}\n"
    said = run_alone(f"{older}sys.modules['jax'].__version__ = '0.7.2'\n{caught}")
    assert said == "fallline.optax needs JAX 0.8 or newer: pip install -U jax. Got 0.7.2.\n"
