"""The Python in README runs, and its table says what the rules say."""

import re

import pytest

import fallline as fl
from fallline._optimizer.named import TEN
from needed import need
from pages import blocks, said
from places import ROOT

PAGE = "README.md"
BLOCKS = [pytest.param(PAGE, block, id=f"{PAGE}-{n}") for n, block in enumerate(blocks(PAGE), 1)]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_the_examples_run_each_by_itself(page, block, tmp_path, monkeypatch):
    for peer in ("torch", "jax", "equinox"):
        if f"import {peer}" in block.code:
            need(peer)
    monkeypatch.chdir(tmp_path)
    said(block, page, {"__name__": "example"})
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_tensors_of_every_dtype_go_on_from_a_file_by_the_line_that_the_readme_has(dtype, path):
    torch = need("torch")
    line = re.search(r"`(p\.data\.copy_.*)`", (ROOT / "README.md").read_text())[1]
    torch.manual_seed(0)
    dtype = getattr(torch, dtype)
    shapes = {"W": (3, 4), "b": (3,), "scale": (), "none": (0, 2)}
    params, g = ({name: torch.randn(shape, dtype=dtype) for name, shape in shapes.items()} for _ in range(2))
    model = torch.nn.ParameterDict({name: torch.zeros_like(p) for name, p in params.items()})
    opt = fl.Adam(0.1)
    opt.step(params, g)
    opt.save(path, params)
    again, loaded = fl.load(path)
    for name, p in model.items():
        exec(line, {"torch": torch, "p": p, "v": loaded[name]})
        assert torch.equal(p, params[name])
    opt.step(params, g)
    again.step(dict(model), g)
    assert all(torch.equal(p, params[name]) for name, p in model.items())


def test_the_table_has_the_names_and_defaults_of_the_ten():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE)
    said = {name: {k: float(v) for k, v in (item.split() for item in defaults.split(", "))} for name, defaults in rows}
    assert said == {name: dict(fl.OPTIMIZERS[name]().hyper) for name in TEN}
