"""A policy as C99 that is C++11, too: one header, one source, and a small program that tests them.

    void NAME_run(const float *obs, int64_t *action, NAME_work *work);

Inputs and outputs are the graph's, one observation at a time. What is computed on the way is in the caller's workspace:
no allocation, no globals, nothing kept between calls, no C library. With memory, `state_in` is what `state_out` was
and may be the same array; `NAME_reset` begins an episode. A policy of the same inputs and outputs replaces another
one with no change to the code around it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdcli.errors import UsageError
from kdcli.exporters.c.check_program import check_program
from kdcli.exporters.c.kernels import own, restrict, texts
from kdcli.exporters.c.lower import lower
from kdcli.exporters.c.memory import Memory, plan
from kdcli.exporters.c.names import json_words, symbol, words
from kdcli.exporters.c.source_builder import SourceBuilder
from kdcli.exporters.c.values import CTYPES, Step
from kdcli.exporters.c.writers import WRITERS
from kdcli.exporters.config import ExportConfig
from kdcli.graph.count import count
from kdcli.graph.operations import Graph, Port
from kdcli.spec import STATE_IN

SOURCE, HEADER, PROGRAM = ".c", ".h", "_test.c"
# The line of the header that the record takes the place of.
NO_RECORD = "/* Without a record of where it comes from. */\n"
CONTRACT = " * contract: "


def write(
    graph: Graph, config: ExportConfig, stem: str, examples: Mapping[str, np.ndarray] | None = None
) -> dict[str, bytes]:
    """The files of a policy called `stem`, by suffix; equal graphs give equal bytes.

    `examples` are inputs and the outputs that belong to them, by name, (N, *shape), for the test program.

    Raises:
        UsageError: a name or a type of numbers that C does not have, weights in half precision.
        RefusedError: one of the policy's numbers is not a number.
    """
    if config.precision != "fp32":
        raise UsageError(f"C has no {config.precision}", "weights are written as float", "--precision fp32")
    name = symbol(stem)
    _check_dtypes((*graph.inputs, *graph.outputs))
    steps = lower(graph)
    builder = SourceBuilder(graph, plan(steps), name)
    for step in steps:
        WRITERS[step.kind](builder, step)
    texts_by_suffix = {
        SOURCE: _source(graph, builder, name, stem, steps),
        HEADER: _header(graph, builder, name, stem),
        PROGRAM: check_program(graph, name, stem, examples),
    }
    return {suffix: text.encode() for suffix, text in texts_by_suffix.items()}


def _check_dtypes(ports: tuple[Port, ...]) -> None:
    for port in ports:
        if port.dtype not in CTYPES:
            why = f"C has: {', '.join(CTYPES)}"
            raise UsageError(f"{port.name} is of type {port.dtype}", why, "choose another --format")


def _signature(graph: Graph, builder: SourceBuilder, name: str) -> str:
    inputs = [f"const {CTYPES[port.dtype]} *{builder.inputs[port.name]}" for port in graph.inputs]
    outputs = [f"{CTYPES[port.dtype]} *{builder.outputs[port.name]}" for port in graph.outputs]
    return f"void {name}_run({', '.join([*inputs, *outputs, f'{name}_work *work'])})"


def _source(graph: Graph, builder: SourceBuilder, name: str, stem: str, steps: list[Step]) -> str:
    read, functions = {value.root for step in steps for value in step.inputs}, texts(builder.used)
    unused = [f"    (void){builder.inputs[port.name]};\n" for port in graph.inputs if port.name not in read]
    arenas = [f"    {CTYPES[dtype]} *const {dtype} = work->{dtype};\n" for dtype in builder.memory.sizes] or [
        "    (void)work;\n"
    ]
    return "".join(
        [
            f"/* {words(stem)}: see the header. Compile with -O3, and for this machine alone with -march=native. */\n",
            f'#include "{stem}.h"\n\n#include <float.h>\n#include <limits.h>\n',
            _fits(graph, builder, name),
            restrict(name) if "restrict" in functions else "",
            own(functions, name),
            "\n/* The policy's numbers; weights lie in rows, one row of outputs for each input. */\n",
            *(own(table, name) for table in builder.tables),
            *(_reset(name, port) for port in graph.inputs if port.name == STATE_IN),
            f"\n{_signature(graph, builder, name)}\n{{\n",
            *arenas,
            *unused,
            *(own(statement, name) for statement in builder.statements),
            "}\n",
        ]
    )


def _fits(graph: Graph, builder: SourceBuilder, name: str) -> str:
    """Checks, as the source is compiled, that numbers are as wide on the machine as the policy takes them to be."""
    most = max(
        [port.size for port in (*graph.inputs, *graph.outputs)] + [*builder.memory.sizes.values(), builder.longest]
    )
    checks = {"float_is_binary32": "sizeof(float) == 4 && FLT_MANT_DIG == 24"}
    if "units_double" in builder.used:
        checks["double_is_read_by_its_bits"] = "sizeof(double) == 8 || sizeof(double) == 4"
    if most >= 1 << 15:
        checks["int_counts_its_numbers"] = f"INT_MAX >= {most}"
    why = "/* Where one of these does not hold, the policy would act wrongly, and is not compiled. */"
    return "\n".join(["", why, *(f"typedef char {name}_{what}[({so}) ? 1 : -1];" for what, so in checks.items()), ""])


def _reset(name: str, state: Port) -> str:
    return (
        f"\nvoid {name}_reset({CTYPES[state.dtype]} *state)\n{{\n"
        f"    for (int i = 0; i < {state.size}; i++)\n        state[i] = 0;\n}}\n"
    )


def _header(graph: Graph, builder: SourceBuilder, name: str, stem: str) -> str:
    guard, state = f"{name.upper()}_H", [port for port in graph.inputs if port.name == STATE_IN]
    resets = [
        "\n/* Begins an episode: the state that the first step gets. Later ones get what the step before gave. */\n"
        f"void {name}_reset({CTYPES[port.dtype]} *state);\n"
        for port in state
    ]
    return "".join(
        [
            f"/*\n * {words(stem)}: a policy as C99. Observation in, as the env gives it; action for the env out.\n",
            *_explained(graph, builder),
            *_used(builder, name),
            f"{CONTRACT}{json_words(_contract(graph, builder, name, stem))}\n */\n",
            f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n",
            '#ifdef __cplusplus\nextern "C" {\n#endif\n\n',
            NO_RECORD,
            "\n",
            *_sizes(graph, builder, name),
            *_workspace(builder.memory, name),
            *resets,
            f"\n/* One decision. */\n{_signature(graph, builder, name)};\n",
            "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
        ]
    )


def _explained(graph: Graph, builder: SourceBuilder) -> list[str]:
    """Lines on what goes in and out, and on what it costs."""
    rows = [("in", builder.inputs[port.name], port) for port in graph.inputs]
    rows += [("out", builder.outputs[port.name], port) for port in graph.outputs]
    lines = [f" *   {way:<4}{given}: {_shape(port)}{_called(given, port)}\n" for way, given, port in rows]
    counted, memory = count(graph), builder.memory.n_bytes
    cost = f"{counted.n_params} parameters, {counted.multiply_adds} multiply-adds"
    return [
        " *\n",
        *lines,
        " *\n",
        f" * {cost}; {builder.n_table_bytes} bytes of constants (flash), {memory} bytes of workspace (RAM).\n",
        " * No allocation, no globals, no C library; nothing is kept between calls: threads may call it at once,\n",
        " * each with a workspace of its own.\n",
        " *\n",
    ]


def _used(builder: SourceBuilder, name: str) -> list[str]:
    """Lines that show how the policy is called."""
    state = builder.inputs.get(STATE_IN)
    arguments = ", ".join([*builder.inputs.values(), *builder.outputs.values(), "&work"])
    reset = (
        [f" *     {name}_reset({state});  where an episode begins; state_out may be the same array\n"] if state else []
    )
    return [f" *     static {name}_work work;\n", *reset, f" *     {name}_run({arguments});\n", " *\n"]


def _shape(port: Port) -> str:
    return f"{CTYPES[port.dtype]} {'x'.join(map(str, port.shape)) or '1'}"


def _called(given: str, port: Port) -> str:
    return "" if given == port.name else f" (called {words(port.name)})"


def _contract(graph: Graph, builder: SourceBuilder, name: str, stem: str) -> dict[str, object]:
    """What a program needs to call the policy, as JSON values."""

    def listed(ports: tuple[Port, ...]) -> list[dict[str, object]]:
        return [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in ports]

    ends = {"inputs": listed(graph.inputs), "outputs": listed(graph.outputs)}
    sizes = {"constant_bytes": builder.n_table_bytes, "work_bytes": builder.memory.n_bytes}
    return {**ends, "symbol": name, "header": f"{stem}.h", **sizes}


def _sizes(graph: Graph, builder: SourceBuilder, name: str) -> list[str]:
    lines = [f"#define {name.upper()}_{builder.inputs[port.name].upper()}_SIZE {port.size}\n" for port in graph.inputs]
    lines += [
        f"#define {name.upper()}_{builder.outputs[port.name].upper()}_SIZE {port.size}\n" for port in graph.outputs
    ]
    flash = f"/* Bytes of constants (flash). */\n#define {name.upper()}_CONSTANT_BYTES {builder.n_table_bytes}\n\n"
    return ["/* How many numbers each array holds. */\n", *lines, "\n", flash]


def _workspace(memory: Memory, name: str) -> list[str]:
    fields = [f"    {CTYPES[dtype]} {dtype}[{size}];\n" for dtype, size in memory.sizes.items()]
    return [
        "/* Room for what is computed on the way (RAM); needs no preparation. */\n",
        "typedef struct {\n",
        *(fields or ["    char nothing;\n"]),
        f"}} {name}_work;\n",
        f"#define {name.upper()}_WORK_BYTES ((int)sizeof({name}_work))\n",
    ]
