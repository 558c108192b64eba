"""A foreign ONNX graph inside one that keeps kdcli's contract: raw observation in, env-ready action out, state beside.

Only operations whose form never changed are added, so that any opset from 11 on keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdcli.spec import STATE_IN, STATE_OUT, Box, Discrete, MultiBinary, MultiDiscrete, Part, n_outputs

INNER, ROW = "inner_", "row_"
OLDEST = 11


@dataclass(frozen=True)
class Seen:
    """One observation: the env's `part` as the input `name` of the new graph, and the foreign input it feeds.

    `shape` is what the foreign input takes, without the batch; `last_to_first`: the env's channels come last.
    """

    name: str
    part: Part
    target: str
    shape: tuple[int, ...]
    code: int
    last_to_first: bool = False


@dataclass(frozen=True)
class Carried:
    """One state: a foreign input and the output it comes back from; `shape` without the batch, which is at `axis`."""

    source: str
    target: str
    shape: tuple[int, ...]
    axis: int
    code: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """What is fed, what comes back, and the foreign output that acts, which is a `signal`."""

    seen: tuple[Seen, ...]
    carried: tuple[Carried, ...]
    output: str
    signal: str
    action: Part

    @property
    def state_size(self) -> int:
        """Numbers it carries from step to step; 0 without memory."""
        return sum(state.size for state in self.carried)


class _GraphBuilder:
    """Nodes and constants around the foreign graph."""

    def __init__(self) -> None:
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []
        self.numbers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: str = "int64") -> str:
        self.numbers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def feed(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.before.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def take(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.after.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def wrap_onnx(model: onnx.ModelProto, plan: Plan, single: bool) -> onnx.ModelProto:
    """The foreign model with the inputs and outputs of kdcli's contract; `single`: it takes one row, and gets each."""
    soil = _GraphBuilder()
    for seen in plan.seen:
        _observe(soil, seen)
    _remember(soil, plan.carried)
    _act(soil, plan)
    inner = onnx.compose.add_prefix(model, INNER).graph
    rows: list[int | str] = [1 if single else "batch"]
    inputs = [_port(seen.name, _code(seen.part.dtype), [*rows, *seen.part.shape]) for seen in plan.seen]
    outputs = [_port("action", _code(plan.action.dtype), [*rows, *plan.action.shape])]
    if plan.signal == "logits":
        outputs.append(_port("logits", onnx.TensorProto.FLOAT, [*rows, n_outputs(plan.action)]))
    if plan.carried:
        inputs.append(_port(STATE_IN, onnx.TensorProto.FLOAT, [*rows, plan.state_size]))
        outputs.append(_port(STATE_OUT, onnx.TensorProto.FLOAT, [*rows, plan.state_size]))
    nodes = [*soil.before, *inner.node, *soil.after]
    graph = helper.make_graph(nodes, "policy", inputs, outputs, [*inner.initializer, *soil.numbers])
    graph.sparse_initializer.extend(inner.sparse_initializer)
    return _with_graph(model, _row_by_row(graph) if single else graph)


def _with_graph(model: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    made = onnx.ModelProto(ir_version=model.ir_version, producer_name="kdcli")
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.CopyFrom(graph)
    return made


def _observe(soil: _GraphBuilder, seen: Seen) -> None:
    """Cast, channels first, and the shape that is wanted, each where it changes something."""
    x, shape = seen.name, seen.part.shape
    if _code(seen.part.dtype) != seen.code:
        x = soil.feed("Cast", [x], f"{seen.name}.cast", to=seen.code)
    if seen.last_to_first:
        x, shape = soil.feed("Transpose", [x], f"{seen.name}.first", perm=[0, 3, 1, 2]), seen.shape
    if shape != seen.shape:
        x = soil.feed("Reshape", [x, soil.constant(f"{seen.name}.shape", [-1, *seen.shape])], f"{seen.name}.shaped")
    soil.feed("Identity", [x], f"{INNER}{seen.target}")


def _remember(soil: _GraphBuilder, carried: Sequence[Carried]) -> None:
    """The state cut into the foreign ones, and put together again from what comes back."""
    at, parts = 0, []
    for state in carried:
        columns = soil.constant(f"{state.source}.columns", list(range(at, at + state.size)))
        x = soil.feed("Gather", [STATE_IN, columns], f"{state.source}.gather", axis=1)
        x = soil.feed("Cast", [x], f"{state.source}.cast", to=state.code)
        x = soil.feed(
            "Reshape", [x, soil.constant(f"{state.source}.shape", [-1, *state.shape])], f"{state.source}.rows"
        )
        there = [*range(1, state.axis + 1), 0, *range(state.axis + 1, len(state.shape) + 1)]
        soil.feed("Transpose", [x], f"{INNER}{state.source}", perm=there)
        back = [state.axis, *(n for n in range(len(state.shape) + 1) if n != state.axis)]
        y = soil.take("Transpose", [f"{INNER}{state.target}"], f"{state.source}.back", perm=back)
        y = soil.take(
            "Reshape", [y, soil.constant(f"{state.source}.flat", [-1, state.size])], f"{state.source}.flattened"
        )
        parts.append(soil.take("Cast", [y], f"{state.source}.next", to=onnx.TensorProto.FLOAT))
        at += state.size
    if parts:
        soil.take("Concat", parts, STATE_OUT, axis=1)


def _act(soil: _GraphBuilder, plan: Plan) -> None:
    """What the foreign output means, as the action the env takes."""
    x, space = f"{INNER}{plan.output}", plan.action
    if plan.signal != "action":
        x = soil.take("Cast", [x], "output.float", to=onnx.TensorProto.FLOAT)
        x = soil.take("Reshape", [x, soil.constant("output.wide", [-1, n_outputs(space)])], "output.rows")
        if plan.signal == "logits":
            soil.take("Identity", [x], "logits")
        x = _chosen(soil, x, space)
    x = soil.take("Reshape", [x, soil.constant("action.shape", [-1, *space.shape])], "action.shaped")
    soil.take("Cast", [x], "action", to=_code(space.dtype))


def _chosen(soil: _GraphBuilder, x: str, space: Part) -> str:
    match space:
        case Discrete(start=start):
            place = soil.take("ArgMax", [x], "choice", axis=1, keepdims=0)
            return soil.take("Add", [place, soil.constant("choice.start", start)], "choice.counted")
        case MultiDiscrete(nvec=nvec):
            return _groups(soil, x, nvec)
        case MultiBinary():
            return soil.take("Round", [soil.take("Sigmoid", [x], "bits.likely")], "bits")
        case Box():
            low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
            x = soil.take("Max", [x, soil.constant("action.low", low, "float32")], "action.above")
            return soil.take("Min", [x, soil.constant("action.high", high, "float32")], "action.within")


def _groups(soil: _GraphBuilder, x: str, sizes: Sequence[int]) -> str:
    at, places = 0, []
    for i, size in enumerate(sizes):
        columns = soil.constant(f"group_{i}.columns", list(range(at, at + size)))
        group = soil.take("Gather", [x, columns], f"group_{i}", axis=1)
        places.append(soil.take("ArgMax", [group], f"group_{i}.place", axis=1, keepdims=1))
        at += size
    return soil.take("Concat", places, "choices", axis=1)


def _row_by_row(graph: onnx.GraphProto) -> onnx.GraphProto:
    """A graph for one row as one for a batch: a Scan over the rows."""
    body = onnx.compose.add_prefix_graph(graph, ROW)
    ins, outs = ([_row(port) for port in ports] for ports in (body.input, body.output))
    nodes = [
        *(helper.make_node("Reshape", [f"{row.name}.row", f"{row.name}.one"], [row.name]) for row in ins),
        *body.node,
        *(helper.make_node("Reshape", [row.name, f"{row.name}.alone"], [f"{row.name}.row"]) for row in outs),
    ]
    shapes = [numpy_helper.from_array(np.array([1, *row.shape], np.int64), f"{row.name}.one") for row in ins]
    shapes += [numpy_helper.from_array(np.array(row.shape, np.int64), f"{row.name}.alone") for row in outs]
    inner = [[_port(f"{row.name}.row", row.code, row.shape) for row in rows] for rows in (ins, outs)]
    loop = helper.make_graph(nodes, "row", inner[0], inner[1], [*body.initializer, *shapes])
    loop.sparse_initializer.extend(body.sparse_initializer)
    outer = [[row.name.removeprefix(ROW) for row in rows] for rows in (ins, outs)]
    scan = helper.make_node("Scan", outer[0], outer[1], body=loop, num_scan_inputs=len(ins))
    ports = [
        [_port(row.name.removeprefix(ROW), row.code, ["batch", *row.shape]) for row in rows] for rows in (ins, outs)
    ]
    return helper.make_graph([scan], "policy", ports[0], ports[1])


@dataclass(frozen=True)
class _Row:
    """An end of a graph for one row: its name, the shape of the row, ONNX's number of its dtype."""

    name: str
    shape: tuple[int, ...]
    code: int


def _row(port: onnx.ValueInfoProto) -> _Row:
    tensor = port.type.tensor_type
    return _Row(port.name, tuple(dim.dim_value for dim in tensor.shape.dim)[1:], tensor.elem_type)


def _port(name: str, code: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, list(shape))


def _code(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
