"""Grids that each sample brings along, in ONNX, and products of their codes in whole numbers.

ONNX's own DynamicQuantizeLinear has one range for the whole batch, so that an action would depend on who else is asked.
Here each row has its own, by plain operations, and onnxruntime's MatMulInteger does the rest.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from kdcli.exporters.onnx.builder import OnnxBuilder, ends
from kdcli.exporters.onnx.packed import CODES, NO_PAIRS, codes_of
from kdcli.graph.operations import Graph, Op
from kdcli.networks.activation_grid import TINY


def dynamic_grids(graph: Graph, opset: int) -> dict[str, Op]:
    """Values on dynamic grids of bytes that only products in whole numbers read, each with its grid."""
    if opset >= NO_PAIRS:
        return {}
    grids = {op.out.name: op for op in graph.ops if op.kind == "dynamic_quantize" and _in_bytes(op)}
    others = {port.name for op in graph.ops if not _whole(op) for port in op.inputs}
    return {name: op for name, op in grids.items() if name not in others | {port.name for port in graph.outputs}}


def _in_bytes(op: Op) -> bool:
    return (op.attrs["low"], op.attrs["high"]) in CODES and len(op.out.shape) == 1


def _whole(op: Op) -> bool:
    packed = op.packed.get("weight")
    return op.kind == "gemm" and packed is not None and packed.scale is not None and packed.bits <= 8


def dynamic_quantize(builder: OnnxBuilder, op: Op) -> None:
    """The codes of a value and what one step of them is, or the value on its grid where floats are read."""
    x, out = ends(op)
    low, high, zero = (op.attrs[key] for key in ("low", "high", "zero"))
    size = x if zero == low else builder.node("Abs", [x], f"{out}.size")
    most = builder.constant(f"{out}.most", high - zero, "float32")
    largest = builder.node("Div", [_largest(builder, op, size), most], f"{out}.share")
    scale = builder.node("Max", [largest, builder.constant(f"{out}.tiny", TINY, "float32")], f"{out}.scale")
    steps = builder.node("Div", [x, scale], f"{out}.steps")
    if out in builder.dynamic:
        pair = [builder.constant(f"{out}.one", 1, "float32"), _zero(builder, op)]
        builder.node("QuantizeLinear", [steps, *pair], f"{out}.codes")
        return
    bounds = [builder.constant(f"{out}.{key}", op.attrs[key] - zero, "float32") for key in ("low", "high")]
    whole = builder.node("Clip", [builder.node("Round", [steps], f"{out}.round"), *bounds], f"{out}.whole")
    builder.node("Mul", [whole, scale], out)


def _largest(builder: OnnxBuilder, op: Op, x: str) -> str:
    name, axes = f"{op.out.name}.largest", [*range(1, len(op.out.shape) + 1)]
    if builder.opset >= 18:
        return builder.node("ReduceMax", [x, builder.constant(f"{name}.axes", axes)], name, keepdims=1)
    return builder.node("ReduceMax", [x], name, axes=axes, keepdims=1)


def _zero(builder: OnnxBuilder, grid: Op) -> str:
    name, kind = f"{grid.out.name}.zero", CODES[grid.attrs["low"], grid.attrs["high"]]
    return name if name in builder.made else builder.constant(name, grid.attrs["zero"], kind)


def dynamic_product(builder: OnnxBuilder, op: Op) -> None:
    """Codes times codes, (B, I) times (I, O), in steps of the row's grid times those of the weight's row."""
    (x, out), packed = ends(op), op.packed["weight"]
    assert packed.scale is not None
    inputs = [f"{x}.codes", _turned(builder, op), _zero(builder, builder.dynamic[x])]
    if packed.zero is not None:
        inputs.append(builder.number(f"{out}.weight.z", packed.zero.astype(np.int8)))
    sums = builder.node("MatMulInteger", inputs, f"{out}.sums")
    floats = builder.node("Cast", [sums], f"{out}.floats", to=TensorProto.FLOAT)
    # One after the other: times the product of both steps, onnxruntime 1.32 would make a MatMulIntegerToFloat of it,
    # which takes the first row's step for all rows.
    rows = builder.node("Mul", [floats, f"{x}.scale"], f"{out}.rows")
    scale = builder.number(f"{out}.weight.f", packed.scale)
    if "bias" not in op.weights:
        builder.node("Mul", [rows, scale], out)
        return
    product = builder.node("Mul", [rows, scale], f"{out}.product")
    builder.node("Add", [product, builder.weight(op, "bias")], out)


def _turned(builder: OnnxBuilder, op: Op) -> str:
    """The weight's codes (I, O) as bytes; onnxruntime turns them once, when it loads the file."""
    name, packed = f"{op.out.name}.weight", op.packed["weight"]
    if packed.bits == 8:
        codes = builder.number(f"{name}.c", packed.codes.astype(np.int8))
    else:
        first = builder.constant(f"{name}.first", -packed.range[0], "int32")
        counted = codes_of(builder, f"{name}.c", packed, TensorProto.INT32)
        codes = builder.node(
            "Cast", [builder.node("Sub", [counted, first], f"{name}.s")], f"{name}.b", to=TensorProto.INT8
        )
    return builder.node("Transpose", [codes], name, perm=[1, 0])
