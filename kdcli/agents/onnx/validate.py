"""What an ONNX file must keep to be run as an agent: its data inside, numbers that are numbers, the ends it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.errors import RefusedError
from kdcli.spec import STATE_IN, STATE_OUT, Part, Space, input_names, parts

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from kdcli.agents.in_batches import InBatches

_TYPES = {"float32": "float", "float64": "double"}


def refuse_other_files(model: onnx.ModelProto, source: str) -> None:
    """Raise RefusedError where a tensor, however deep, is kept in another file."""
    from onnx.external_data_helper import uses_external_data

    tensors = (tensor for body in (model.graph, *model.functions) for tensor in tensors_of(body))
    if any(map(uses_external_data, tensors)):
        raise RefusedError(f"{source} keeps weights in other files", "kdcli reads single files only", "join them first")


def tensors_of(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph or function, and of the graphs inside it."""
    yield from getattr(body, "initializer", ())  # a function has none
    for sparse in getattr(body, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in body.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from tensors_of(inner)


def check_record(record: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless the record has the parts that `OnnxAgent` and its readers use."""
    if not isinstance(record["name"], str) or not all(isinstance(record[key], dict) for key in ("facts", "network")):
        raise ValueError("no name, facts or network")
    if record["rule"].keys() != {"squash", "limit", "masked"} or not math.isfinite(record["rule"]["limit"]):
        raise ValueError("no rule for actions")
    if not set(record["sampled_by"]) <= {"logits", "mean", "log_std"}:
        raise ValueError("no outputs to sample by")


def check_numbers(model: onnx.ModelProto) -> None:
    """Raise ValueError where a number of the policy is NaN, or a weight infinite (a bound may be)."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
            array = numpy_helper.to_array(tensor)
            if np.isnan(array).any() or (array.ndim > 1 and not np.isfinite(array).all()):
                raise ValueError(f"{tensor.name[:80]} holds NaN or infinity")


def check_ends(
    session: onnxruntime.InferenceSession | InBatches, record: Mapping[str, Any], sees: Space, edited: bool = False
) -> None:
    """Raise ValueError or KeyError unless the file can be asked what `OnnxAgent` asks; an `edited` one in batches."""
    ends, outs = session.get_inputs(), [end.name for end in session.get_outputs()]
    names = input_names(sees)
    wanted = {names[name]: (part.dtype, part.shape) for name, part in parts(sees).items()}
    memory = record["state"] is not None and int(record["state"]["size"]) > 0
    if memory:
        wanted[STATE_IN] = ("float32", (int(record["state"]["size"]),))
    if [end.name for end in ends] != list(wanted) or "action" not in outs or (STATE_OUT in outs) != memory:
        raise ValueError(f"inputs {[end.name for end in ends]} and outputs {outs}, not {list(wanted)} and action")
    for end in ends:
        dtype, shape = wanted[end.name]
        kind = f"tensor({_TYPES.get(dtype, dtype)})"
        if end.type != kind or (isinstance(end.shape[0], int) and not edited) or tuple(end.shape[1:]) != shape:
            raise ValueError(f"{end.name} takes {end.type} of shape {end.shape}, not {kind} of shape {shape}")


def check_decision(run: Callable[[], Mapping[str, np.ndarray]], does: Part) -> None:
    """Raise ValueError unless `run`, for two observations, gives two actions of the space `does`."""
    try:
        action = run()["action"]
    except Exception as error:  # onnxruntime's own kinds have no common base but this
        raise ValueError((str(error) or repr(error)).splitlines()[0]) from None
    if action.shape != (2, *does.shape) or action.dtype.kind not in "biuf":
        raise ValueError(f"actions of shape {action.shape} and kind {action.dtype}, not of {does}")
