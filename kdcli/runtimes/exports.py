"""Runtimes that run an export as its own format does: a function of named arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kdcli.benchmarks.program import Program, inputs
from kdcli.exporters import EXPORTERS
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.formats import Files
from kdcli.graph.operations import Graph, Op, Port
from kdcli.graph.trace import trace
from kdcli.runtimes.runtime import Runtime, RuntimeEntry
from kdcli.spec import STATE_IN, STATE_OUT

Start = Callable[[Files, Graph], Callable[..., object]]


def identity(graph: Graph) -> Graph:
    """A policy of the same inputs that does nothing: its action is the first of them, its state the one before."""
    first = graph.inputs[0]
    ends = [(first, Port("action", first.shape, first.dtype))]
    ends += [(port, Port(STATE_OUT, port.shape, port.dtype)) for port in graph.inputs if port.name == STATE_IN]
    return Graph(graph.inputs, tuple(Op("identity", (a,), (b,)) for a, b in ends), tuple(b for _, b in ends))


def written(graph: Graph, form: str) -> Files:
    """The files of a graph in a format, as `convert` writes them, not compared with anything."""
    return EXPORTERS.load(form).write(graph, ExportConfig(format=form), "policy", {})


def _program(form: str, entrant: RuntimeEntry) -> Program:
    agent, run = entrant.agent, EXPORTERS.load(form).runner
    graph, given = trace(agent), inputs(agent.observation, agent.policy.network.state_size)
    empty = identity(graph)
    floor = Program(run(written(empty, form), empty), given)
    return replace(floor, call=run(entrant.exported(form).files, graph), floor=floor)


TORCHSCRIPT = Runtime(partial(_program, "torchscript"), form="torchscript")
NUMPY = Runtime(partial(_program, "numpy"), form="numpy")
