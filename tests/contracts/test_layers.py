"""The layer order: every module imports only from those above it."""

import ast
from pathlib import Path

import fallline

ORDER = [
    "errors", "words", "meant", "instead", "differences", "sealed",
    "showing", "functions", "ieee", "ops", "precision", "trees", "arrays", "ranges",
    "settings", "schema", "rules.formulas", "rules.modifiers", "rules.further",
    "rules.matrices", "rules", "program", "trace", "memory", "threads", "arithmetic", "engines.rows",
    "engines.blocks", "engines.reference", "engines.compiler", "engines.ir", "engines.stored", "engines.jobs",
    "engines.pool", "engines.work", "engines.scalars", "engines.call", "engines.reading", "engines.native",
    "engines.strided", "engines.eager", "engines", "schedules.base", "schedules.shapes", "schedules.data",
    "schedules.picture", "schedules", "options", "chain", "numbers", "fastpass",
    "faststep", "bound", "damping",
    "hoststep", "hostcall", "wholecall", "eagercall", "fingerprint", "statedict", "tensorfile",
    "saved", "keeping", "settable", "describing", "points", "optimizer", "optimizers", "parts", "divided", "keptparts",
    "fastparts", "stepparts", "partof", "partition", "checkpoint", "_judge", "resume", "_progress", "descend", "_scipy",
    "_objective", "minimize", "race", "cli",
]  # fmt: skip
ROOT = Path(fallline.__file__).parent


def _layer(module: str) -> int:
    name = module.removeprefix("fallline").removeprefix(".")
    return ORDER.index("race" if name.split(".")[0] == "race" else name) if name else -1


def _imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            paths = [ROOT.parent / name.replace(".", "/") for name in whole]
            modules = [n for n, p in zip(whole, paths) if p.is_dir() or p.with_suffix(".py").exists()]
            yield from modules or [node.module]


def test_every_module_imports_only_from_the_layers_above_it():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        if module in ("fallline", "fallline.__main__"):
            continue
        for imported in _imports(path):
            inside = imported.split(".")[0] == "fallline" and imported != "fallline"
            same = imported.startswith("fallline.race") and module.startswith("fallline.race")
            if inside and not same and _layer(imported) >= _layer(module):
                wrong.append(f"{module} imports {imported}")
    assert not wrong
