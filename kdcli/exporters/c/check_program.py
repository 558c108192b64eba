"""A program that runs a policy's C files on a few observations and exits with 0 if it acts as it did."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdcli.exporters.c.names import words
from kdcli.exporters.c.source_builder import braces
from kdcli.exporters.c.values import CTYPES
from kdcli.graph.operations import Graph, Port

# Another compiler may round otherwise than this one; a mistake is larger.
_TOLERANCE = "1e-4"

_DIFFERS = f"""
/* Whether a number is another one than it should be, up to rounding; it is if it is not a number. */
static int differs(double found, double wanted)
{{
    const double size = wanted < 0 ? -wanted : wanted, gap = found < wanted ? wanted - found : found - wanted;
    return !(gap <= {_TOLERANCE} * (size < 1 ? 1 : size));
}}
"""


def check_program(graph: Graph, name: str, stem: str, examples: Mapping[str, np.ndarray] | None) -> str:
    """The text of the program; without examples, it looks for no more than numbers that are none."""
    given = examples or {port.name: np.zeros((1, *port.shape), port.dtype) for port in graph.inputs}
    wanted = [port for port in graph.outputs if port.name in given]
    n = len(given[graph.inputs[0].name])
    tables = [_table(f"given_{i}", given[port.name], port) for i, port in enumerate(graph.inputs)]
    tables += [_table(f"wanted_{i}", given[port.name], port) for i, port in enumerate(graph.outputs) if port in wanted]
    founds = [f"static {CTYPES[p.dtype]} found_{i}[{p.size}];\n" for i, p in enumerate(graph.outputs)]
    inputs = [f"given_{i} + n * {port.size}" for i, port in enumerate(graph.inputs)]
    outputs = [f"found_{i}" for i in range(len(graph.outputs))]
    checks = [_check(i, port, port in wanted) for i, port in enumerate(graph.outputs)]
    n_numbers = n * sum(port.size for port in graph.outputs)
    macro = f"{name.upper()}_TEST"
    return "".join(
        [
            f"/* Test of {words(stem)}: exits with 0 if it acts as it did when it was written.\n *\n",
            f" *     cc -std=c99 -O3 -D{macro} the_policy.c this_file.c -o check && ./check\n *\n",
            " * Without that macro it is empty, since many builds compile every file of a folder.\n */\n",
            f"#ifndef {macro}\ntypedef char {name}_test_is_left_out;\n#else\n\n",
            f'#include <stdio.h>\n#include "{stem}.h"\n\n',
            *tables,
            *founds,
            f"static {name}_work work;\n",
            _DIFFERS,
            f"\nint main(void)\n{{\n    int wrong = 0;\n    for (int n = 0; n < {n}; n++) {{\n",
            f"        {name}_run({', '.join([*inputs, *outputs, '&work'])});\n",
            *checks,
            f'    }}\n    printf("%d of {n_numbers} numbers are not as they were\\n", wrong);\n',
            "    return wrong != 0;\n}\n\n#endif\n",
        ]
    )


def _table(name: str, array: np.ndarray, port: Port) -> str:
    values = np.asarray(array, port.dtype)
    return f"static const {CTYPES[port.dtype]} {name}[{values.size}] = {braces(values)};\n"


def _check(i: int, port: Port, is_known: bool) -> str:
    wanted = f"wanted_{i}[n * {port.size} + i]" if is_known else f"found_{i}[i]"
    return (
        f"        for (int i = 0; i < {port.size}; i++)\n"
        f"            wrong += differs((double)found_{i}[i], (double){wanted});\n"
    )
