"""The Python in README and in the guide runs, each block by itself."""

import re

import pytest

import fallline as fl
from needed import need
from pages import blocks, said
from places import ROOT

PAGES = {"README.md": 4, "docs/guide.md": 14}  # with how many blocks there are
BLOCKS = [pytest.param(page, block, id=f"{page}-{n}") for page in PAGES for n, block in enumerate(blocks(page), 1)]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_the_examples_run_each_by_itself(page, block, tmp_path, monkeypatch):
    for peer in ("torch", "jax", "equinox"):
        if f"import {peer}" in block.code:
            need(peer)
    monkeypatch.chdir(tmp_path)
    said(block, page, {"__name__": "example"})


def test_no_block_is_missed_and_the_readme_is_short():
    assert {page: len(blocks(page)) for page in PAGES} == PAGES
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_tensors_of_every_dtype_go_on_from_a_file_by_the_line_that_the_guide_has(dtype, path):
    torch = need("torch")
    line = re.search(r"`(p\.data\.copy_.*)`", (ROOT / "docs/guide.md").read_text())[1]
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
