"""Reads the mathematics of a page as a reader of the page would: from the LaTeX alone, with numbers for its symbols."""

from __future__ import annotations

import re

import numpy as np

TOKEN = re.compile(r"\\(?:begin|end|mathit|mathrm){\w+}|\\text{[^}]*}|\\\\|\\,|\\[A-Za-z]+|\d+(?:\.\d+)?|\S")
OPENING = {"(": ")", r"\left": r"\right", r"\lvert": r"\rvert", r"\lVert": r"\rVert", "{": "}"}
RELATIONS = {"<": np.less, r"\le": np.less_equal, ">": np.greater, r"\ge": np.greater_equal, "=": np.equal,
             r"\ne": np.not_equal}  # fmt: skip
FUNCTIONS = {r"\max": np.maximum, r"\min": np.minimum, r"\mathrm{sign}": np.sign, r"\ln": np.log, r"\exp": np.exp}
TINY = float(np.finfo(np.float64).tiny)


class Reader:
    """One line's right-hand side; `values` has the number or array that each symbol stands for."""

    def __init__(self, latex, values):
        self.tokens = TOKEN.findall(latex.replace(r"\displaystyle", ""))
        self.at, self.values = 0, values

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *expected):
        token = self.peek()
        assert token in (expected or self.tokens), f"{expected} at {' '.join(self.tokens[self.at:])}"
        self.at += 1
        return token

    def has(self, token):
        found = self.peek() == token
        self.at += found
        return found

    def sum(self):
        value = -self.product() if self.has("-") else self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self):
        value = self.power()
        while self.has(r"\,") or self.has(r"\cdot") or self.starts():
            value = value * self.power()
        return value

    def starts(self):
        return self.peek() in ("(", r"\left", r"\frac", r"\sqrt") or bool(re.match(r"\d|[a-z]", self.peek()))

    def power(self):
        value = self.atom()
        while self.has("^"):
            if self.has("+"):
                value = np.maximum(value, TINY)
            else:
                value = value ** (self.group() if self.peek() == "{" else float(self.symbol()))
        return value

    def group(self):
        self.take("{")
        value = self.sum()
        self.take("}")
        return value

    def arguments(self):
        self.take("(", r"\left") == r"\left" and self.take("(")
        found = [self.sum()]
        while self.has(","):
            found.append(self.sum())
        self.has(r"\right")
        self.take(")")
        return found

    def atom(self):
        token = self.peek()
        if token in ("(", r"\left"):
            return self.arguments()[0]
        if token in FUNCTIONS:
            return FUNCTIONS[self.take()](*self.arguments())
        if token == r"\frac":
            self.take()
            return self.group() / self.group()
        if token == r"\sqrt":
            self.take()
            return np.sqrt(self.group())
        if token in (r"\lvert", r"\lVert"):
            return self.between_bars()
        if token == r"\sum":
            self.take()
            self.scope()
            return np.sum(self.product())
        return self.cases() if token == r"\begin{cases}" else self.symbol()

    def between_bars(self):
        bar = self.take()
        value = self.sum()
        self.take(OPENING[bar])
        if bar == r"\lvert":
            return np.abs(value)
        self.scope()
        return np.linalg.norm(value)

    def scope(self):
        for token in ("_", "{"):
            self.take(token)
        self.take(r"\mathrm{leaf}", r"\mathrm{tree}")
        self.take("}")

    def cases(self):
        self.take(r"\begin{cases}")
        rows = []
        while not self.has(r"\end{cases}"):
            value = self.sum()
            while self.peek() in ("&", r"\\", r"\quad"):  # the condition stands beside the case or below it
                self.take()
            condition = self.relation() if self.take().startswith(r"\text{if") else True
            rows.append((condition, value))
            self.has(r"\\")
        return np.select([np.broadcast_to(c, self.shape(rows)) for c, _ in rows],
                         [np.broadcast_to(v, self.shape(rows)) for _, v in rows])  # fmt: skip

    def shape(self, rows):
        return np.broadcast_shapes(*(np.shape(part) for row in rows for part in row))

    def relation(self):
        left = self.sum()
        return RELATIONS[self.take()](left, self.sum())

    def symbol(self):
        name = self.take()
        if re.match(r"\d", name):
            return float(name)
        if name == r"\mathrm{tiny}":
            return TINY
        if name == r"\Delta":
            name += self.take()
        if self.has("_"):
            below = self.take()
            while below.count("{") > below.count("}"):
                below += self.take()
            name += f"_{below}"
        if self.tokens[self.at : self.at + 4] == ["^", "{", r"\mathrm{old}", "}"]:
            self.at += 4
            name += "old"
        return self.values[name]


def name_of(latex):
    """A symbol as the reader calls it."""
    return re.sub(r"\s", "", latex)


def compute(latex, values):
    """Take one step: every line of an aligned block in turn, with its new value for the lines below it."""
    values |= {f"{name}old": value for name, value in values.items()}
    whole = re.sub(r"\\\\\n&\\quad", "", re.sub(r"\\(begin|end){aligned}", "", latex))  # what goes on in the next row
    for line in whole.split("\\\\\n"):
        name, right = re.split(r"&=|&\\leftarrow", line, maxsplit=1)
        reader = Reader(right, values)
        value = reader.sum()
        assert reader.peek() == "", f"left over: {' '.join(reader.tokens[reader.at:])}"
        values[name_of(name)] = value
    return values
