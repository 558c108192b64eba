"""A graph as an ONNX file: one function a kind of operation. Equal graphs give equal bytes.

The file's initializers are the policy's numbers and nothing else; what ONNX itself needs to be told (shapes, limits,
sizes) is a Constant node, so that parameters can be counted in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper

from kdcli.agents.onnx.edits import with_parts
from kdcli.agents.onnx.session import KEY, blank_record, seal, start
from kdcli.artifact import versions
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.formats import Files, Format, Run
from kdcli.exporters.onnx.builder import OnnxBuilder, Writer, code, ends
from kdcli.exporters.onnx.dynamic import dynamic_grids, dynamic_quantize
from kdcli.exporters.onnx.image_bytes import bytes_of
from kdcli.exporters.onnx.layers import LAYERS
from kdcli.exporters.onnx.packed import convolutions_of_bytes, integer_grids, pair_of
from kdcli.graph.operations import Graph, Op, Port
from kdcli.networks.activations import RRELU_SLOPE

SUFFIX = ".onnx"


def write(graph: Graph, config: ExportConfig, *_: Any) -> Files:
    """The graph as ONNX, without a record.

    Raises:
        UsageError: the installed onnx does not know the opset.
    """
    builder = OnnxBuilder(config.opset, config.precision == "fp16", integer_grids(graph, config.opset))
    builder.bytes, idle = bytes_of(graph, builder.grids)
    builder.dynamic = dynamic_grids(graph, config.opset)
    builder.convolved = convolutions_of_bytes(graph, builder.grids, builder.bytes)
    idle |= {name for grid in builder.convolved.values() for name in (grid.inputs[0].name, grid.out.name)}
    idle -= set(builder.convolved)
    for op in graph.ops:
        if op.outputs[0].name not in idle:
            WRITERS[op.kind](builder, op)
    inputs, outputs = ([_value_info(port) for port in ports] for ports in (graph.inputs, graph.outputs))
    body = helper.make_graph(builder.nodes, "policy", inputs, outputs, builder.initializers)
    producer = {"producer_name": "kdcli", "producer_version": versions().get("kdcli", "")}
    model = helper.make_model(body, **producer, **_editions(config.opset))
    onnx.checker.check_model(model, full_check=True)
    return {SUFFIX: model.SerializeToString(deterministic=True)}


def stamp(files: Files, record: Mapping[str, Any]) -> Files:
    """The file with the record and a digest at its end; not one of its own bytes changes."""
    content = with_parts(record, onnx.load_model_from_string(files[SUFFIX]), runner(files))
    entry = onnx.StringStringEntryProto(key=KEY, value=blank_record(content))
    # Bytes of two protobuf messages, one after the other, are the bytes of the two merged.
    return {SUFFIX: seal(files[SUFFIX] + onnx.ModelProto(metadata_props=[entry]).SerializeToString(deterministic=True))}


def runner(files: Files, _: Graph | None = None) -> Run:
    """The file run by onnxruntime.

    Raises:
        RefusedError: onnxruntime does not take it.
    """
    session = start(files[SUFFIX], "the exported file")
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True))


def _editions(opset: int) -> dict[str, Any]:
    """The opset, and the oldest file version that allows it, which the most runtimes read."""
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        why = f"the newest that onnx {onnx.__version__} writes is {newest}"
        raise UsageError(f"opset {opset} is not known", why, f"--opset {newest}, or an older one")
    imports = [helper.make_opsetid("", opset)]
    return {"opset_imports": imports, "ir_version": helper.find_min_ir_version_for(imports)}


def _value_info(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, code(port.dtype), ["batch", *port.shape])


def _same(kind: str, **attributes: float) -> Writer:
    """The writer of an operation that ONNX has, with these attributes and else its defaults."""

    def write_same(builder: OnnxBuilder, op: Op) -> None:
        x, out = ends(op)
        builder.node(kind, [x], out, **attributes)

    return write_same


def _cast(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Cast", [x], out, to=code(op.out.dtype))


def _clip(builder: OnnxBuilder, op: Op) -> None:
    """Clip takes single bounds only."""
    x, out = ends(op)
    low, high = builder.weight(op, "low"), builder.weight(op, "high")
    if op.weights["low"].ndim == 0:
        builder.node("Clip", [x, low, high], out)
    else:
        builder.node("Min", [builder.node("Max", [x, low], f"{out}.max"), high], out)


def _reshape(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Reshape", [x, builder.constant(f"{out}.shape", [-1, *op.out.shape])], out)


def _gelu(builder: OnnxBuilder, op: Op) -> None:
    """One node since opset 20; before, the five that onnxruntime knows as one."""
    x, out = ends(op)
    if builder.opset >= 20:
        builder.node("Gelu", [x], out)
        return
    root = builder.constant(f"{out}.root", math.sqrt(2.0), "float32")
    one, half = builder.constant(f"{out}.one", 1.0, "float32"), builder.constant(f"{out}.half", 0.5, "float32")
    erf = builder.node("Erf", [builder.node("Div", [x, root], f"{out}.div")], f"{out}.erf")
    product = builder.node("Mul", [x, builder.node("Add", [erf, one], f"{out}.add")], f"{out}.mul")
    builder.node("Mul", [product, half], out)


def _silu(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Mul", [x, builder.node("Sigmoid", [x], f"{out}.sigmoid")], out)


def _between(low: float, high: float) -> Writer:
    """The writer of a clip to two numbers."""

    def write_between(builder: OnnxBuilder, op: Op) -> None:
        x, out = ends(op)
        bounds = [builder.constant(f"{out}.{key}", side, "float32") for key, side in (("low", low), ("high", high))]
        builder.node("Clip", [x, *bounds], out)

    return write_between


def _hardswish(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Mul", [x, builder.node("HardSigmoid", [x], f"{out}.gate", alpha=1 / 6, beta=0.5)], out)


def _mish(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    gate = builder.node("Tanh", [builder.node("Softplus", [x], f"{out}.softplus")], f"{out}.gate")
    builder.node("Mul", [x, gate], out)


def _log_sigmoid(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    positive = builder.node("Softplus", [builder.node("Neg", [x], f"{out}.neg")], f"{out}.softplus")
    builder.node("Neg", [positive], out)


def _tanhshrink(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Sub", [x, builder.node("Tanh", [x], f"{out}.tanh")], out)


def _normalize(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    centred = builder.node("Sub", [x, builder.weight(op, "mean")], f"{out}.sub")
    if math.isinf(op.attrs["clip"]):
        builder.node("Div", [centred, builder.weight(op, "scale")], out)
        return
    scaled = builder.node("Div", [centred, builder.weight(op, "scale")], f"{out}.div")
    low, high = (builder.constant(f"{out}.{key}", sign * op.attrs["clip"], "float64") for key, sign in _SIDES)
    builder.node("Clip", [scaled, low, high], out)


_SIDES = (("low", -1.0), ("high", 1.0))


def _scale(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Div", [x, builder.constant(f"{out}.divisor", op.attrs["divisor"], op.out.dtype)], out)


def _quantize(builder: OnnxBuilder, op: Op) -> None:
    """As a pair of QuantizeLinear and DequantizeLinear where products in whole numbers follow, else as the formula."""
    x, out = ends(op)
    if out in builder.grids:
        builder.pairs[out] = pair_of(builder, op)
        _codes(builder, x, out, builder.pairs[out])
        return
    scale, zero = builder.weight(op, "scale"), builder.weight(op, "zero")
    bounds = [builder.constant(f"{out}.{key}", op.attrs[key], "float32") for key in ("low", "high")]
    whole = builder.node("Round", [builder.node("Div", [x, scale], f"{out}.div")], f"{out}.round")
    code = builder.node("Clip", [builder.node("Add", [whole, zero], f"{out}.add"), *bounds], f"{out}.codes")
    builder.node("Mul", [builder.node("Sub", [code, zero], f"{out}.sub"), scale], out)


def _codes(builder: OnnxBuilder, x: str, out: str, pair: tuple[str, str]) -> None:
    """The codes of a value: rounded, or the bytes that an input has."""
    known = builder.bytes.get(out)
    if known is None:
        builder.node("QuantizeLinear", [x, *pair], f"{out}.codes")
    elif known.turned:
        builder.node("Transpose", [known.source], f"{out}.codes", perm=[0, 3, 1, 2])
    else:
        builder.node("Identity", [known.source], f"{out}.codes")


def _unscale(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    if "middle" not in op.weights:
        builder.node("Mul", [x, builder.weight(op, "half")], out)
        return
    product = builder.node("Mul", [x, builder.weight(op, "half")], f"{out}.mul")
    builder.node("Add", [product, builder.weight(op, "middle")], out)


def _one_hot(builder: OnnxBuilder, op: Op) -> None:
    """Each integer beside every place it may have, and where the two are equal: no index can go out of range."""
    x, out = ends(op)
    sizes, start = op.attrs["sizes"], op.attrs["start"]
    places = builder.constant(f"{out}.places", [start + place for size in sizes for place in range(size)])
    if op.inputs[0].shape:
        owners = builder.constant(f"{out}.owners", [group for group, size in enumerate(sizes) for _ in range(size)])
        beside = builder.node("Gather", [x, owners], f"{out}.gather", axis=1)
    else:
        beside = builder.node("Unsqueeze", [x, builder.constant(f"{out}.axis", [1])], f"{out}.unsqueeze")
    builder.node("Cast", [builder.node("Equal", [beside, places], f"{out}.equal")], out, to=code(op.out.dtype))


def _expectation(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    atoms = op.weights["atoms"].size
    apart = builder.node("Reshape", [x, builder.constant(f"{out}.shape", [-1, op.out.size, atoms])], f"{out}.reshape")
    builder.node(
        "MatMul", [builder.node("Softmax", [apart], f"{out}.softmax", axis=2), builder.weight(op, "atoms")], out
    )


def _mean(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    shape = builder.constant(f"{out}.shape", [-1, op.attrs["groups"], op.out.size])
    apart = builder.node("Reshape", [x, shape], f"{out}.reshape")
    if builder.opset >= 18:
        builder.node("ReduceMean", [apart, builder.constant(f"{out}.axis", [1])], out, keepdims=0)
    else:
        builder.node("ReduceMean", [apart], out, axes=[1], keepdims=0)


def _argmax(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    if not op.attrs["start"]:
        builder.node("ArgMax", [x], out, axis=1, keepdims=0)
        return
    place = builder.node("ArgMax", [x], f"{out}.place", axis=1, keepdims=0)
    builder.node("Add", [place, builder.constant(f"{out}.start", op.attrs["start"])], out)


def _group_argmax(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    sizes = op.attrs["sizes"]
    groups = [f"{out}.group_{i}" for i in range(len(sizes))]
    builder.split(x, groups, sizes)
    places = [builder.node("ArgMax", [group], f"{group}.place", axis=1, keepdims=1) for group in groups]
    builder.node("Concat", places, out, axis=1)


def _threshold(builder: OnnxBuilder, op: Op) -> None:
    """As torch does it: sigmoid, then the nearest integer, halves to even."""
    x, out = ends(op)
    builder.node("Round", [builder.node("Sigmoid", [x], f"{out}.sigmoid")], out)


def _repeat(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Expand", [builder.weight(op, "value"), builder.node("Shape", [x], f"{out}.shape")], out)


def _gsde(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    square = builder.node("Mul", [x, x], f"{out}.square")
    variance = builder.node("MatMul", [square, builder.weight(op, "variance")], f"{out}.variance_of_mean")
    floor, half = builder.constant(f"{out}.floor", 1e-6, "float32"), builder.constant(f"{out}.half", 0.5, "float32")
    log = builder.node("Log", [builder.node("Add", [variance, floor], f"{out}.add")], f"{out}.log")
    builder.node("Mul", [log, half], out)


WRITERS: Mapping[str, Writer] = {
    "argmax": _argmax,
    "cast": _cast,
    "clip": _clip,
    "dynamic_quantize": dynamic_quantize,
    "elu": _same("Elu"),
    "expectation": _expectation,
    "gelu": _gelu,
    "group_argmax": _group_argmax,
    "gsde": _gsde,
    "hardshrink": _same("Shrink", bias=0.0, lambd=0.5),
    "hardsigmoid": _same("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": _hardswish,
    "hardtanh": _between(-1.0, 1.0),
    "identity": _same("Identity"),
    "leaky_relu": _same("LeakyRelu"),
    "log_sigmoid": _log_sigmoid,
    "mean": _mean,
    "mish": _mish,
    "normalize": _normalize,
    "one_hot": _one_hot,
    "quantize": _quantize,
    "relu": _same("Relu"),
    "relu6": _between(0.0, 6.0),
    "rrelu": _same("LeakyRelu", alpha=RRELU_SLOPE),
    "repeat": _repeat,
    "reshape": _reshape,
    "scale": _scale,
    "selu": _same("Selu"),
    "sigmoid": _same("Sigmoid"),
    "silu": _silu,
    "softplus": _same("Softplus"),
    "softshrink": _same("Shrink", bias=0.5, lambd=0.5),
    "softsign": _same("Softsign"),
    "tanh": _same("Tanh"),
    "tanhshrink": _tanhshrink,
    "threshold": _threshold,
    "unscale": _unscale,
    **LAYERS,
}

FORMAT = Format(write, stamp, runner)
