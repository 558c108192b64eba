"""An ONNX file of any exporter, opened: its ends, its state, its numbers; checked before anything of it is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import uses_external_data

from kdcli.agents.onnx.validate import tensors_of
from kdcli.checkpoints.blackbox.onnx_wrap import OLDEST, Carried
from kdcli.checkpoints.safe.containers import read_bytes
from kdcli.errors import RefusedError

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_TYPES = onnx.TensorProto
FLOATS = (_TYPES.FLOAT, _TYPES.DOUBLE, _TYPES.FLOAT16)
INTEGERS = (_TYPES.INT64, _TYPES.INT32, _TYPES.INT16, _TYPES.INT8, _TYPES.UINT8, _TYPES.BOOL)
# How the name of a state's output follows from its input's.
_RETURNS = (("_in", "_out"), ("in_", "out_"), ("In", "Out"), ("", "_out"), ("", "n"), ("_0", "_n"))


@dataclass(frozen=True)
class End:
    """An input or output: its name, dimensions (None where any number goes), and ONNX's number of its type."""

    name: str
    dims: tuple[int | None, ...]
    code: int

    def __str__(self) -> str:
        sizes = ", ".join("?" if n is None else str(n) for n in self.dims)
        known = self.code in _TYPES.DataType.values()
        return f"{self.name} {_TYPES.DataType.Name(self.code).lower() if known else 'of no type'} ({sizes})"


@dataclass(frozen=True, eq=False)
class Opened:
    """A foreign file: its model and its ends. Nothing of it has been run."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]


def open_file(path: Path) -> Opened:
    """The model at `path`, of which nothing is run.

    Raises:
        UsageError: it cannot be opened.
        RefusedError: it is damaged, keeps weights elsewhere, or needs operations onnxruntime does not bring.
    """
    return open_bytes(read_bytes(path), path.name)


def open_bytes(data: bytes, name: str) -> Opened:
    """As `open_file`, of the bytes of a file that errors call `name`."""
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise RefusedError(f"{name} is not an ONNX file", str(error), "copy or export it again") from None
    if _is_garbled(model):
        raise RefusedError(f"{name} is damaged", "a name in it is no text", "copy it again")
    if any(map(uses_external_data, _tensors(model))):
        fix = f"python -c \"import onnx; onnx.save(onnx.load('{name}'), 'whole.onnx')\" makes one file of them"
        raise RefusedError(f"{name} keeps weights in other files", "kdcli reads single files only", fix)
    _refuse_strangers(model, name)
    kept = {tensor.name for tensor in model.graph.initializer}  # before IR 4, weights were inputs, too
    inputs = tuple(_end(port) for port in model.graph.input if port.name not in kept)
    if not inputs or not model.graph.output:
        raise RefusedError(f"{name} is no policy", "it takes nothing, or gives nothing", "export the policy again")
    return Opened(name, model, inputs, tuple(map(_end, model.graph.output)))


def _end(port: onnx.ValueInfoProto) -> End:
    tensor = port.type.tensor_type
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return End(port.name, dims, tensor.elem_type)


def _is_garbled(message: Message) -> bool:
    """Whether some text, however deep, is not UTF-8; protobuf gives such a text as bytes."""
    for field, value in message.ListFields():
        items = [value] if isinstance(value, Message | str | bytes) else value
        if field.type == field.TYPE_STRING and not all(isinstance(item, str) for item in items):
            return True
        if field.type == field.TYPE_MESSAGE and any(map(_is_garbled, items)):
            return True
    return False


def _refuse_strangers(model: onnx.ModelProto, name: str) -> None:
    """Raise RefusedError for operations of other makers, and for opsets too old to be added to."""
    own = {function.domain for function in model.functions}
    bodies = [model.graph, *model.functions]
    strange = {node.domain for body in bodies for node in _nodes(body)} - {*_DOMAINS, *own}
    if strange:
        fix = "export it with standard operations only"
        raise RefusedError(f"{name} needs operations of {min(strange)[:60]}", "kdcli loads no code for them", fix)
    opset = max((found.version for found in model.opset_import if found.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST:
        raise RefusedError(f"{name} has opset {opset}", f"kdcli reads {OLDEST} and newer", "export it again")


def _nodes(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph, and of the graphs inside it."""
    for node in body.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the file, however deep."""
    for body in (model.graph, *model.functions):
        yield from tensors_of(body)


def carried_states(opened: Opened) -> list[Carried]:
    """Inputs that come back as outputs of the same shape under a name that follows from theirs."""
    returns = {end.name: end for end in opened.outputs}
    found = []
    for end in opened.inputs:
        back = next((returns[name] for name in _returned(end.name) if name in returns), None)
        alike = back is not None and end.code in FLOATS and back.code == end.code and _alike(back.dims, end.dims)
        if back is not None and alike and len(end.dims) > 1:
            axis = _batch_axis(end)
            shape = tuple(n for at, n in enumerate(end.dims) if at != axis)
            if any(n is None for n in shape):
                raise RefusedError(f"{opened.name}: the state {end} has an open size", "only its batch may be open")
            found.append(Carried(end.name, back.name, tuple(n or 1 for n in shape), axis, end.code))
    return found


def _alike(dims: Sequence[int | None], others: Sequence[int | None]) -> bool:
    """Whether two ends may have the same shape."""
    return len(dims) == len(others) and all(None in (a, b) or a == b for a, b in zip(dims, others, strict=True))


def _returned(name: str) -> list[str]:
    """What the output may be called that an input comes back from."""
    plain = [f"next_{name}", f"new_{name}", f"{name}_next", f"{name}_new"]
    ends = [f"{name}{new}" if not old else name.replace(old, new) for old, new in _RETURNS if not old or old in name]
    return [*ends, *plain]


def _batch_axis(end: End) -> int:
    """Where the batch is: the only open size; else second of three, as torch's recurrent layers have it, or first."""
    open_sizes = [at for at, n in enumerate(end.dims) if n is None]
    if len(open_sizes) == 1:
        return open_sizes[0]
    return 1 if len(end.dims) == 3 else 0


def count_numbers(model: onnx.ModelProto) -> int:
    """Numbers in the file that are not counters or shapes: arrays of real numbers, wherever they are kept."""
    real = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    return sum(prod(tensor.dims) for tensor in _tensors(model) if tensor.data_type in real and prod(tensor.dims) > 1)


def describe(path: Path) -> dict[str, Any]:
    """What a foreign file says of itself, without an env: its ends, its opset, its own metadata."""
    opened = open_file(path)
    model = opened.model
    kept = {entry.key: entry.value[:200] for entry in model.metadata_props}
    return {
        "inputs": list(map(str, opened.inputs)),
        "outputs": list(map(str, opened.outputs)),
        "state": [f"{state.source} -> {state.target}" for state in carried_states(opened)],
        "opset": max((found.version for found in model.opset_import if found.domain in ("", "ai.onnx")), default=0),
        "producer": f"{model.producer_name} {model.producer_version}".strip()[:80],
        "parameters": count_numbers(model),
        "metadata": json.loads(json.dumps(kept)),
    }
