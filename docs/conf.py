"""The documentation site: `sphinx-build -W -n docs OUT`, with the extra `docs`. It asks nothing of the network."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import fallline as fl

sys.path.insert(0, str(Path(__file__).parent))
import docstrings

project = "fallline"
author = "the authors of fallline"
version = release = fl.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["_build", "jupyter_execute"]
source_suffix = {".md": "myst-nb"}

# Pages are Markdown as GitHub shows it, so that they can be read there as well.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3

# Tutorials run when they are built; what raises is a warning, and with -W that is fatal.
nb_execution_timeout = 120
os.environ.setdefault("KERAS_BACKEND", "torch")  # for what is imported of fallline.keras
os.environ |= dict.fromkeys(("COLUMNS", "JUPYTER_COLUMNS"), "86")  # for tables: as many as a cell has room for
nb_execution_show_tb = True
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/latex", 5)]  # before HTML, as MathJax is here
copybutton_exclude = ".linenos, .gp, .go"

# Docstrings say types in words, with shapes and dtypes.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
add_module_names = False

(mathjax,) = find_spec("sphinx-mathjax-offline").submodule_search_locations
mathjax_path = "tex-svg.js"  # one file, without fonts of its own
html_theme = "furo"
html_title = f"fallline {version}"
html_static_path = ["_static", str(Path(mathjax, "static", "mathjax", mathjax_path))]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False

HERE = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md",
        "../src/fallline/rules": "api/formulas.md"}  # fmt: skip


# What pages end with, by name, from the one table of optimisers: their pages, and their entries.
BY_OPTIMIZER = {
    "optimizers": ("```{toctree}\n:hidden:\n\n", "optimizers/{}\n"),
    "api/optimizers": ("```{eval-rst}\n", ".. autoclass:: fallline.{}\n   :members:\n   :exclude-members: rule\n\n"),
}


def on_the_site(app, name, source):
    """Links that are right in the repository, as they are right here, and what is listed of every optimiser."""
    source[0] = re.sub(r"(?<=\]\()\.\./[^)#]+(?=[)#])", lambda link: HERE.get(link[0], link[0]), source[0])
    if name in BY_OPTIMIZER:
        opening, entry = BY_OPTIMIZER[name]
        source[0] += f"\n{opening}{''.join(map(entry.format, fl.OPTIMIZERS))}```\n"


def the_playground(app, failed):
    """The file that docs/playground.md shows."""
    if not failed:
        Path(app.outdir, "play.html").write_text(fl.playground.page(), encoding="utf-8")


def setup(app):
    app.connect("build-finished", the_playground)
    app.connect("source-read", on_the_site)
    app.connect("autodoc-process-docstring", docstrings.rewrite)
