"""Text is read and written as UTF-8 whatever the system's encoding is, which on Windows is another."""

import ast
from pathlib import Path

import fallline

ROOT = Path(fallline.__file__).parent


def without_encoding(tree):
    """Lines of calls that read or write text in the system's encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        of_os = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in ("os", "webbrowser")
        texts = [str(node.value) for node in call.args if isinstance(node, ast.Constant)]
        binary = any("b" in text and set(text) <= set("rwxab+") for text in texts)
        encoded = any(keyword.arg == "encoding" for keyword in call.keywords)
        if name in ("read_text", "write_text", "open", "fdopen") and not (of_os or binary or encoded):
            yield call.lineno


def test_every_text_file_of_the_package_is_opened_as_utf_8():
    found = {f"{file.relative_to(ROOT)}:{line}" for file in ROOT.rglob("*.py")
             for line in without_encoding(ast.parse(file.read_text(encoding="utf-8")))}
    assert found == set()


def test_a_call_without_an_encoding_is_found():
    lines = ["open('a')", "p.read_text()", "p.open('rb')", "p.write_text(s, encoding='utf-8')", "os.open(p, 1)",
             "open(p, 'w')", "open(p, 'xb')"]
    assert list(without_encoding(ast.parse("\n".join(lines)))) == [1, 2, 6]
