"""A race is run again from its file: what agrees, what does not, and what cannot be told."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from fallline.cli import main
from fallline.race import Problem, check, load, run
from fallline.race.findings.agreement import TOLERANCE, agreement
from support import run_alone

pytestmark = pytest.mark.slow


def square(x):
    return float(x @ x), 2 * x


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("race")
    run("digits", ["SGD", "Adam"], jobs=1, steps=12, repeats=2, surfaces=("saddle",), seed=5).save(folder)
    return folder


def leaves(node, at=()):
    """Where everything stands in a document."""
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return itertools.chain.from_iterable(leaves(below, (*at, key)) for key, below in items)
    return [at]


def altered(document, at, change):
    document = copy.deepcopy(document)
    node = document
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = change(node[at[-1]])
    return document


def test_a_race_that_is_run_again_agrees_to_the_byte_whatever_the_processes(saved):
    found = check(saved, jobs=2)
    assert found.agrees
    assert all(part.same for part in found.parts)
    assert str(found).endswith("All agrees, to the byte.")
    assert "digits, 2 optimisers, 12 steps, seed 5 (protocol 1)" in str(found)


@given(data=st.data())
def test_whatever_is_altered_is_found(saved, data):
    document = load(saved).document
    at = data.draw(st.sampled_from([at for at in leaves(document) if at[0] not in ("measured", "fallline")]))
    changed = altered(document, at, lambda value: f"{value}!" if isinstance(value, str | None) else value + 1)
    found = agreement(changed, document)
    assert not found.agrees
    assert "It does not agree." in str(found)


def test_on_another_machine_losses_agree_to_the_tolerance_and_the_reason_is_given(saved):
    document = load(saved).document
    there = altered(document, ("measured", "arithmetic", "BLAS"), lambda _: ["openblas 0.0 Prescott"])
    at = ("optimizers", 0, "final", "losses", 1)
    near, far = (altered(there, at, lambda loss, by=by: loss * (1 + by)) for by in (TOLERANCE / 2, 3 * TOLERANCE))
    assert not agreement(altered(document, at, lambda loss: loss * (1 + 1e-15)), document).agrees, "same arithmetic"
    found = agreement(near, document)
    assert found.agrees
    assert "All agrees, to 1e-06 of each loss." in str(found)
    assert "The arithmetic is another (BLAS openblas 0.0 Prescott there" in str(found)
    found = agreement(far, document)
    assert not found.agrees
    assert f"{document['optimizers'][0]['name']}, final, losses 1: " in str(found)


def test_on_another_machine_a_rate_that_was_not_chosen_may_end_anywhere(saved):
    document = load(saved).document
    there = altered(document, ("measured", "arithmetic", "machine"), lambda _: "other")
    entry = document["optimizers"][0]
    for k, trial in enumerate(entry["tuning"]):
        changed = altered(there, ("optimizers", 0, "tuning", k, "losses", 0), lambda loss: 2 * (loss or 1))
        assert agreement(changed, document).agrees == (trial["rate"] != entry["rate"])


BLAS = """
import sys
import fallline as fl
found = fl.race.check(sys.argv[1], jobs=1)
print(found.agrees, [part.difference for part in found.parts if part.name == "fresh seeds"][0] < 1e-9, sep="\\n")
print(found)
"""


def test_with_other_kernels_of_blas_the_digits_agree_to_the_tolerance(saved):
    """Where BLAS is OpenBLAS on x86-64; elsewhere it has nothing else to choose, and bits agree."""
    agrees, closely, *said = run_alone(BLAS, str(saved), OPENBLAS_CORETYPE="Prescott").splitlines()
    assert (agrees, closely) == ("True", "True"), said


def test_a_problem_that_draws_what_no_seed_decides_does_not_agree(tmp_path):
    rng = np.random.default_rng()
    drifting = Problem(np.ones(2), square, evaluate=lambda x: {"train_loss": float(x @ x) * rng.random()}, name="drift")
    path = run(drifting, ["SGD"], jobs=1, steps=5, surfaces=()).save(tmp_path / "results.json")
    found = check(path, drifting, jobs=1)
    assert not found.agrees
    assert "draw numbers that its seed does not decide?" in str(found)


def test_objects_are_given_again_and_must_be_those_of_the_race(tmp_path):
    bowl, mine = Problem(np.ones(2), square, name="bowl"), {"mine": fl.SGD(0.5), "SGD": fl.SGD}
    path = run(bowl, mine, jobs=1, steps=5, surfaces=()).save(tmp_path / "results.json")
    assert check(path, bowl, mine, jobs=1).agrees
    assert not check(path, bowl, {"mine": fl.SGD(0.25), "SGD": fl.SGD}, jobs=1).agrees
    for given_again, message in (
        ((), r"The problem bowl was an object, .* give it again, fallline.race.check\(path, problem=...\)"),
        ((bowl,), "mine was an object, of which a file knows the settings alone: give all optimizers again"),
        ((bowl, ["SGD"]), "optimizers must be those of the race, mine, SGD. Got SGD."),
    ):
        with pytest.raises(ValueError, match=message):
            check(path, *given_again)


def test_files_that_cannot_be_checked_say_why(saved, tmp_path, capsys):
    document = load(saved).document
    for key, value, said in (
        ("protocol_version", 9, "protocol_version of the race must be 1, which this fallline has. Got 9: take the"),
        ("finished", False, "The race must have finished to be run again and compared. It was interrupted."),
        ("schema", "other", "takes another version of fallline"),
    ):
        (tmp_path / "results.json").write_text(json.dumps(document | {key: value}))
        with pytest.raises(SystemExit) as ended:
            main(["check", str(tmp_path)])
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    with pytest.raises(SystemExit):
        main(["check", "nowhere"])
    assert capsys.readouterr().err == "fallline: There is no file nowhere.\n"


def test_the_command_ends_with_0_where_all_agrees_and_with_1_where_not(tmp_path, capsys):
    document = run("bowl", ["SGD", "Adam"], jobs=1, steps=5, repeats=1, surfaces=()).document
    for factor, code, said in ((1, 0, "All agrees, to the byte."), (2, 1, "differs")):
        changed = altered(document, ("optimizers", 1, "final", "losses", 0), lambda loss: factor * loss)  # noqa: B023
        Path(tmp_path / "results.json").write_text(json.dumps(changed))
        with pytest.raises(SystemExit) as ended:
            main(["check", str(tmp_path), "--jobs", "1"])
        assert ended.value.code == code
        assert said in capsys.readouterr().out
