"""The C source of a policy as it is written: its tables of numbers, the functions it calls, its statements."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kdcli.errors import RefusedError
from kdcli.exporters.c.kernels import TEXTS
from kdcli.exporters.c.memory import Memory
from kdcli.exporters.c.names import PUBLIC, Names
from kdcli.exporters.c.values import CTYPES, Value
from kdcli.graph.operations import Graph

_LINE = 100


class SourceBuilder:
    """Tables, statements and the names of functions, in the order in which they came; equal orders give equal text.

    `inputs` and `outputs` are the C names of the graph's ports. Tables begin with the policy's `name`: two policies may
    stand in one translation unit.
    """

    def __init__(self, graph: Graph, memory: Memory, name: str) -> None:
        self.memory, self._prefix = memory, name
        self._names = Names([*TEXTS, *PUBLIC, "i", "k", "o", "a", "all", *memory.sizes])
        self.inputs = {port.name: self._names.new(port.name) for port in graph.inputs}
        self.outputs = {port.name: self._names.new(port.name) for port in graph.outputs}
        self.tables: list[str] = []
        self.statements: list[str] = []
        self.used: set[str] = set()
        self.n_table_bytes = self.longest = 0

    def at(self, value: Value) -> str:
        """C for the place of a value's first number."""
        name, start = self._place(value)
        return f"{name} + {start}" if start else name

    def item(self, value: Value, index: str = "i") -> str:
        """C for one number of a value."""
        name, start = self._place(value)
        return f"{name}[{start} + {index}]" if start else f"{name}[{index}]"

    def _place(self, value: Value) -> tuple[str, int]:
        block = self.memory.blocks.get(value.root)
        if block is None:
            return self.inputs[value.root], value.start
        return block.dtype, block.offset + value.start

    def table(self, name: str, array: np.ndarray) -> str:
        """Add constant numbers; returns the name of their table."""
        given = f"{self._prefix}_{self._names.new(name)}"
        self.tables.append(f"static const {CTYPES[array.dtype.name]} {given}[{array.size}] = {braces(array)};\n")
        self.n_table_bytes += array.nbytes
        self.longest = max(self.longest, array.size)
        return given

    def window(self, name: str, sizes: Iterable[int]) -> str:
        """Add the sizes of a window; returns C for its address."""
        given = f"{self._prefix}_{self._names.new(name)}"
        numbers = [*map(str, sizes)]
        self.tables.append(f"static const window {given} = {{{', '.join(numbers)}}};\n")
        self.n_table_bytes += 4 * len(numbers)
        self.used.add("window")
        return f"&{given}"

    def call(self, function: str, *arguments: object) -> None:
        """Add a call of one of the functions in `kernels`."""
        self.used.add(function)
        self.add(f"{function}({', '.join(map(str, arguments))});")

    def each(self, n: int, statement: str) -> None:
        """Add a statement for every i below n."""
        self.add(f"for (int i = 0; i < {n}; i++)", f"    {statement}")

    def add(self, *lines: str) -> None:
        """Add lines of C."""
        self.statements += [f"    {line}\n" for line in lines]


def number(value: float, dtype: str) -> str:
    """A C literal that is exactly `value`; for infinity the largest number.

    Raises:
        RefusedError: not a number.
    """
    kind = np.dtype(dtype)
    if kind.kind != "f":
        return str(int(value))
    if np.isnan(value):
        raise RefusedError("the policy cannot be written as C", "one of its numbers is not a number", "train it again")
    bounded = np.clip(value, np.finfo(kind).min, np.finfo(kind).max)
    text = f"{bounded:.9g}" if dtype == "float32" else f"{bounded:.17g}"
    text = text if {".", "e"} & {*text} else f"{text}.0"
    return f"{text}f" if dtype == "float32" else text


def braces(array: np.ndarray) -> str:
    """A C initializer of all numbers in a row.

    Raises:
        RefusedError: one is not a number.
    """
    dtype = array.dtype.name
    lines, line = [], ""
    for value in array.ravel().tolist():
        text = number(value, dtype)
        if len(line) + len(text) > _LINE:
            lines.append(line.rstrip())
            line = ""
        line += f"{text}, "
    return "{\n    " + "\n    ".join([*lines, line.rstrip(", ")]) + "\n}"
