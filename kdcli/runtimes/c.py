"""The C files of a policy, called as a C program calls them: a loop in C over different observations."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from kdcli.benchmarks.program import Program, inputs
from kdcli.exporters.c.run import FLAGS, compiled
from kdcli.exporters.c.stamp import contract
from kdcli.exporters.c.values import CTYPES
from kdcli.exporters.formats import Files
from kdcli.graph.trace import trace
from kdcli.runtimes.exports import identity, written
from kdcli.runtimes.runtime import Runtime, RuntimeEntry

# A timed call takes about so long: the clock tells some tens of nanoseconds, and others use the machine, too.
_LONG_ENOUGH = 20e-6
_MOST = 256
Given = tuple[int, list[Any], Mapping[str, np.ndarray]]


def _loop(terms: Mapping[str, Any]) -> str:
    """C that makes `n` decisions, each on the next observation of the arrays it is given."""
    ins = [(f"in{i}", CTYPES[port["dtype"]], _size(port)) for i, port in enumerate(terms["inputs"])]
    outs = [(f"out{i}", CTYPES[port["dtype"]]) for i, port in enumerate(terms["outputs"])]
    arguments = [f"const {kind} *{name}" for name, kind, _ in ins] + [f"{kind} *{name}" for name, kind in outs]
    passed = [f"{name} + (long)i * {size}" for name, _, size in ins] + [name for name, _ in outs]
    symbol = terms["symbol"]
    return (
        f'#include "{terms["header"]}"\n'
        f"void kdcli_loop(int n, {', '.join(arguments)}, {symbol}_work *work);\n"
        f"void kdcli_loop(int n, {', '.join(arguments)}, {symbol}_work *work)\n"
        f"{{\n    for (int i = 0; i < n; i++)\n        {symbol}_run({', '.join(passed)}, work);\n}}\n"
    )


def _size(port: Mapping[str, Any]) -> int:
    return int(np.prod(port["shape"], dtype=int))


def _start(files: Files, flags: tuple[str, ...]) -> Callable[[Given], list[np.ndarray]]:
    """A loop over the observations it is given; gives the outputs of the last."""
    terms = contract(files)
    loop = compiled(files, (*FLAGS, *flags), {"loop.c": _loop(terms)}).kdcli_loop
    loop.restype = None
    made = [np.zeros(max(1, _size(port)), port["dtype"]) for port in terms["outputs"]]
    made.append(np.zeros(terms["work_bytes"] // 8 + 1))
    ends = [(array, ctypes.c_void_p(array.ctypes.data)) for array in made]  # the arrays live as long as their addresses

    def call(given: Given) -> list[np.ndarray]:
        n, starts, _ = given
        loop(n, *starts, *[address for _, address in ends])
        return made[:-1]

    return call


def _program(flags: tuple[str, ...], entrant: RuntimeEntry) -> Program:
    agent = entrant.agent
    feed = inputs(agent.observation, agent.policy.network.state_size)

    def given(obs: np.ndarray) -> Given:
        arrays = feed(obs)
        return len(obs), [ctypes.c_void_p(array.ctypes.data) for array in arrays.values()], arrays

    call = _start(entrant.exported("c").files, flags)
    floor = Program(_start(written(identity(trace(agent)), "c"), flags), given, _MOST)
    return replace(floor, call=call, block=_block(call, given(entrant.states.observations[:1])), floor=floor)


def _block(call: Callable[[Given], object], given: Given) -> int:
    """How many decisions one timed call makes."""
    times = []
    for _ in range(9):
        began = perf_counter()
        call(given)
        times.append(perf_counter() - began)
    return int(np.clip(_LONG_ENOUGH / np.median(times), 1, _MOST))


C = Runtime(partial(_program, ()), form="c")
C_NATIVE = Runtime(partial(_program, ("-march=native",)), form="c")
