"""Native functions written with Python's operators: values compute, loops and branches are `with` blocks.

What comes out is LLVM's text, to run as it stands: no optimiser need look at it. What varies round a loop or by branch
is a `Variable`, for which phi nodes are written, so that it stays in a register.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Union

__all__ = ["Function", "Value", "Variable", "module"]

Operand = Union["Value", int, float]


def _operator(op: str) -> Callable[[Value, Operand], Value]:
    def compute(self: Value, other: Operand) -> Value:
        return self.binary("f" + op if _is_real(self.kind) else op, other)

    return compute


def _comparison(integer: str, real: str) -> Callable[[Value, Operand], Value]:
    def compare(self: Value, other: Operand) -> Value:
        return self.compare(real if _is_real(self.kind) else integer, other)

    return compare


class Value:
    """A number, vector or pointer of a function: its LLVM type, and its name there, or what it is if it is constant.

    A Python number that it is combined with becomes a constant of the same type.
    """

    __slots__ = ("_function", "kind", "name")

    def __init__(self, function: Function, kind: str, name: str) -> None:
        self._function, self.kind, self.name = function, kind, name

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def __bool__(self) -> bool:
        raise TypeError("known only when the function runs: branch with `when`, or choose")

    __add__, __sub__, __mul__, __truediv__ = map(_operator, ("add", "sub", "mul", "div"))
    __floordiv__, __mod__ = map(_operator, ("sdiv", "srem"))  # towards 0, as C has them
    __and__, __or__, __xor__, __lshift__, __rshift__ = map(_operator, ("and", "or", "xor", "shl", "lshr"))
    __lt__, __le__, __gt__, __ge__, equals, differs = map(  # integers as signed
        _comparison, ("slt", "sle", "sgt", "sge", "eq", "ne"), ("olt", "ole", "ogt", "oge", "oeq", "une"))

    def binary(self, op: str, other: Operand) -> Value:
        """By LLVM's word for the operation."""
        return self._function.make(self.kind, f"{op} {self}, {self._function.value(other, self.kind).name}")

    def compare(self, relation: str, other: Operand) -> Value:
        """By LLVM's word for the relation: "ult" is that of integers without a sign."""
        op = "fcmp" if _is_real(self.kind) else "icmp"
        return self._function.make("i1", f"{op} {relation} {self}, {self._function.value(other, self.kind).name}")

    def __invert__(self) -> Value:
        return self ^ -1

    def __neg__(self) -> Value:
        return self._function.make(self.kind, f"fneg {self}")

    def choose(self, yes: Value, no: Operand) -> Value:
        """One or the other, by this i1."""
        return self._function.make(yes.kind, f"select {self}, {yes}, {self._function.value(no, yes.kind)}")

    def least(self, other: Operand) -> Value:
        """The lesser of two integers."""
        return (self < other).choose(self, other)

    def cast(self, op: str, kind: str) -> Value:
        """As another type, by LLVM's word for how: "zext", "bitcast", ..."""
        return self._function.make(kind, f"{op} {self} to {kind}")

    def at(self, index: Operand, kind: str = "i64") -> Value:
        """The address so many of a kind behind this one."""
        return self._function.make("ptr", f"getelementptr inbounds {kind}, {self}, {self._function.value(index)}")

    def load(self, kind: str = "i64", index: Operand = 0, *, order: str = "", align: int = 0) -> Value:
        """What stands at this address, or so many behind it; with an `order`, atomically."""
        where = self if index == 0 else self.at(index, kind)
        return self._function.make(kind, f"load {'atomic ' * bool(order)}{kind}, {where}{_access(order, align)}")

    def store(self, value: Operand, index: Operand = 0, *, order: str = "", align: int = 0) -> None:
        """Have it stand there, a Python number as an i64."""
        value = self._function.value(value)
        where = self if index == 0 else self.at(index, value.kind)
        self._function.line(f"store {'atomic ' * bool(order)}{value}, {where}{_access(order, align)}")

    def update(self, op: str, by: Operand, order: str) -> Value:
        """Change the i64 that stands there in one go ("add", "sub"); what stood there before."""
        return self._function.make("i64", f"atomicrmw {op} {self}, {self._function.value(by)} {order}")

    def words(self, places: Mapping[str, int], names: str) -> list[Value]:
        """Words of a record (see `layout`) by name, blank between; `*name` is one that holds an address."""
        return [self.load("ptr" if name[0] == "*" else "i64", places[name.lstrip("*")]) for name in names.split()]


def _is_real(kind: str) -> bool:
    return kind.rstrip(">").endswith(("float", "double"))


def _access(order: str, align: int) -> str:
    return f" {order}, align 8" if order else f", align {align}" if align else ""


def _constant(value: int | float, kind: str) -> str:
    if kind[0] == "<":
        lanes, each = kind[1:-1].split(" x ")
        return f"<{', '.join([f'{each} {_constant(value, each)}'] * int(lanes))}>"
    if _is_real(kind):
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if kind == "ptr":
        return f"inttoptr (i64 {value} to ptr)" if value else "null"
    return str(int(value))


class Variable:
    """What differs by turn of a loop or behind a branch: `now` is its value at this point of the text."""

    def __init__(self, now: Value) -> None:
        self.now = now


class _Label:
    """Where blocks go on; each comes with values of its own of the variables that there were when this was made."""

    def __init__(self, function: Function) -> None:
        self._function, self.name = function, function.new_name("b")
        self._variables = list(function.variables)
        self._edges: list[tuple[str, list[Value]]] = []

    def __str__(self) -> str:
        return f"label %{self.name}"

    def come(self) -> None:
        """From the block that is being written."""
        self._edges.append((self._function.block, [variable.now for variable in self._variables]))

    def jump(self) -> None:
        """Come from that block, if it has not ended, and end it."""
        if self._function.block:
            self.come()
            self._function.end_block(f"br {self}")

    def place(self) -> None:
        """Go on here, if any block does."""
        self._function.variables[:] = self._variables
        if self._edges:
            self._function.begin_block(self.name)
            for variable, *values in zip(self._variables, *(values for _, values in self._edges)):
                variable.now = values[0] if len(set(values)) == 1 else self._function.make(
                    values[0].kind, self._phi(values))  # fmt: skip

    def place_early(self) -> Callable[[], None]:
        """Go on here before all blocks have come; to be called when they have."""
        self._function.begin_block(self.name)
        line, lines = self._function.line(""), self._function.lines
        phis = [Value(self._function, variable.now.kind, self._function.new_name("%v")) for variable in self._variables]
        for variable, phi in zip(self._variables, phis):
            variable.now = phi

        def complete() -> None:
            values = zip(*(values for _, values in self._edges))
            lines[line] = "\n".join(f"  {phi.name} = {self._phi(own)}" for phi, own in zip(phis, values))

        return complete

    def _phi(self, values: Sequence[Value]) -> str:
        edges = ", ".join(f"[ {value.name}, %{block} ]" for value, (block, _) in zip(values, self._edges))
        return f"phi {values[0].kind} {edges}"


class Function:
    """A function that is being written; `signature` stands behind LLVM's `define`, its arguments without names."""

    def __init__(self, signature: str) -> None:
        self._kind = signature[: signature.index(" @")].split()[-1]
        inside = signature[signature.index("(") + 1 : signature.rindex(")")]
        kinds = [argument.split()[0] for argument in inside.split(", ") if argument]
        self.arguments = [Value(self, kind, f"%{k}") for k, kind in enumerate(kinds)]
        self.lines, self.block, self.variables = [f"define {signature} {{", "entry:"], "entry", list[Variable]()
        self._declared: dict[str, None] = {}
        self._numbers = itertools.count()
        self._loops: list[tuple[_Label, _Label]] = []

    def text(self) -> str:
        """All of it; one that returns nothing ends here."""
        if self.block:
            self.ret()
        return "\n".join([*self._declared, *self.lines, "}\n"])

    def new_name(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"

    def line(self, text: str) -> int:
        """Write an instruction that has no value; the number of its line."""
        self.lines.append("  " + text)
        return len(self.lines) - 1

    def make(self, kind: str, text: str) -> Value:
        """The value of an instruction."""
        value = Value(self, kind, self.new_name("%v"))
        self.line(f"{value.name} = {text}")
        return value

    def value(self, value: Operand, kind: str = "i64") -> Value:
        """A Python number as a constant: a real to the bit, of a vector every lane, of a pointer the address."""
        return value if isinstance(value, Value) else Value(self, kind, _constant(value, kind))

    def variable(self, first: Operand, kind: str = "i64") -> Variable:
        """What varies up to the end of the loop or branch that this stands in."""
        self.variables.append(Variable(self.value(first, kind)))
        return self.variables[-1]

    def room(self, kind: str, size: int = 1, align: int = 64) -> Value:
        """The address of so many on the stack; not to be asked for in a loop."""
        return self.make("ptr", f"alloca [{size} x {kind}], align {align}")

    def call(self, kind: str, function: str | Value, *arguments: Operand) -> Value:
        """Call a function by name or address; an argument that is a Python number is an i64."""
        callee = function.name if isinstance(function, Value) else "@" + function
        text = f"call {kind} {callee}({', '.join(str(self.value(argument)) for argument in arguments)})"
        if kind != "void":
            return self.make(kind, text)
        self.line(text)
        return Value(self, kind, "")

    def intrinsic(self, kind: str, name: str, *arguments: Value) -> Value:
        """Call and declare one of LLVM's own."""
        self._declared[f"declare {kind} @llvm.{name}({', '.join(argument.kind for argument in arguments)})"] = None
        return self.call(kind, "llvm." + name, *arguments)

    def begin_block(self, name: str) -> None:
        self.lines.append(name + ":")
        self.block = name

    def end_block(self, text: str) -> None:
        self.line(text)
        self.block = ""

    def ret(self, value: Operand | None = None) -> None:
        self.end_block("ret void" if value is None else f"ret {self.value(value, self._kind)}")

    def ret_if(self, condition: Value, value: Operand) -> None:
        with self.when(condition):
            self.ret(value)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is done only then."""
        inside, behind = self.new_name("b"), _Label(self)
        behind.come()
        self.end_block(f"br {condition}, label %{inside}, {behind}")
        self.begin_block(inside)
        yield
        behind.jump()
        behind.place()

    @contextmanager
    def loop(self, end: Operand | None = None, start: Operand = 0, step: int = 1) -> Iterator[Value]:
        """For every number from start on and below the end; without an end, until `stop` or `ret`."""
        again, behind = _Label(self), _Label(self)
        count = self.variable(start)
        head = _Label(self)
        head.jump()
        complete, turn = head.place_early(), count.now
        self._loops.append((again, behind))
        if end is not None:
            self.stop(turn >= end)
        yield turn
        self._loops.pop()
        again.jump()
        again.place()
        if self.block:
            count.now = self.make(turn.kind, f"add nuw nsw {turn}, {step}")
            head.jump()
        complete()
        behind.place()

    def skip(self, condition: Value | None = None) -> None:
        """Go on with the loop's next turn, under a condition or in any case."""
        self._leave(self._loops[-1][0], condition)

    def stop(self, condition: Value | None = None) -> None:
        """Go on behind the loop, under a condition or in any case."""
        self._leave(self._loops[-1][1], condition)

    def _leave(self, label: _Label, condition: Value | None) -> None:
        if condition is None:
            label.jump()
        else:
            label.come()
            rest = self.new_name("b")
            self.end_block(f"br {condition}, {label}, label %{rest}")
            self.begin_block(rest)


def module(*functions: str) -> str:
    """Functions as one module, in which what several of them declare stands once."""
    lines = "\n".join(functions).split("\n")
    declared = dict.fromkeys(line for line in lines if line.startswith("declare"))
    return "\n".join([*declared, *(line for line in lines if not line.startswith("declare"))])
