"""The layers of networks in ONNX: products, convolutions, and recurrent cells as one step of plain operations.

ONNX has operations for whole sequences, GRU and LSTM; onnxruntime's quantizer and pruners leave those alone, and a step
of plain operations is as fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdcli.exporters.onnx.builder import OnnxBuilder, Writer, code, ends
from kdcli.exporters.onnx.dynamic import dynamic_product
from kdcli.exporters.onnx.packed import convolve, move, whole
from kdcli.graph.operations import Op, Port


def _affine(builder: OnnxBuilder, op: Op, kind: str, ends: tuple[str, str], **attributes: Any) -> None:
    """A product with the operation's weight and, where there is one, its bias."""
    (x, out), names = ends, [key for key in ("weight", "bias") if key in op.weights]
    builder.node(kind, [x, *(whole(builder, op) or [builder.weight(op, key) for key in names])], out, **attributes)


def _gemm(builder: OnnxBuilder, op: Op) -> None:
    """Rows are multiplied as if they were more of the batch."""
    x, out = ends(op)
    if x in builder.dynamic:
        dynamic_product(builder, op)
        return
    if len(op.out.shape) == 1:
        _affine(builder, op, "Gemm", (x, out), transB=1)
        return
    width, shape = op.inputs[0].shape[-1], builder.constant(f"{out}.shape", [-1, *op.out.shape])
    rows = builder.node("Reshape", [x, builder.constant(f"{out}.width", [-1, width])], f"{out}.rows")
    _affine(builder, op, "Gemm", (rows, f"{out}.gemm"), transB=1)
    builder.node("Reshape", [f"{out}.gemm", shape], out)


def _add(builder: OnnxBuilder, op: Op) -> None:
    builder.node("Add", [port.name for port in op.inputs], op.out.name)


def _attention(builder: OnnxBuilder, op: Op) -> None:
    """The heads apart, (B, heads, N, D / heads), as plain products: as fast as a node of its own, in any opset."""
    out, heads, (m, width) = op.out.name, op.attrs["heads"], op.out.shape
    q, k, v = (
        _heads(builder, f"{out}.{key}", port, heads, key) for key, port in zip("qkv", op.inputs[:3], strict=True)
    )
    scale = builder.constant(f"{out}.scale", (width // heads) ** -0.5, "float32")
    scores = builder.node("Mul", [builder.node("MatMul", [q, k], f"{out}.product"), scale], f"{out}.scores")
    if len(op.inputs) > 3:
        scores = builder.node("Add", [scores, op.inputs[3].name], f"{out}.biased")
        seen = builder.node("Cast", [op.inputs[4].name], f"{out}.seen", to=code("bool"))
        axes = builder.constant(f"{out}.axes", [1, 2])
        shown = builder.node("Unsqueeze", [seen, axes], f"{out}.shown")
        scores = builder.node(
            "Where", [shown, scores, builder.constant(f"{out}.hidden", -1e8, "float32")], f"{out}.masked"
        )
    mixed = builder.node("MatMul", [builder.node("Softmax", [scores], f"{out}.softmax", axis=3), v], f"{out}.mixed")
    turned = builder.node("Transpose", [mixed], f"{out}.turned", perm=[0, 2, 1, 3])
    builder.node("Reshape", [turned, builder.constant(f"{out}.shape", [-1, m, width])], out)


def _heads(builder: OnnxBuilder, name: str, port: Port, heads: int, key: str) -> str:
    """Rows (B, N, D) -> (B, heads, N, D / heads), of keys (B, heads, D / heads, N)."""
    n, width = port.shape
    shape = builder.constant(f"{name}.shape", [-1, n, heads, width // heads])
    apart = builder.node("Reshape", [port.name, shape], f"{name}.apart")
    return builder.node("Transpose", [apart], name, perm=[0, 2, 3, 1] if key == "k" else [0, 2, 1, 3])


def _conv2d(builder: OnnxBuilder, op: Op) -> None:
    stride, padding = op.attrs["stride"], op.attrs["padding"]
    kernel = op.weights["weight"].shape[2:]
    sides: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(stride), "pads": [*padding, *padding]}
    groups = {"group": op.attrs["groups"]} if "groups" in op.attrs else {}
    if op.out.name in builder.convolved:
        convolve(builder, op, builder.convolved[op.out.name], **sides, **groups)
    else:
        _affine(builder, op, "Conv", ends(op), **sides, **groups)


def _max_pool2d(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    kernel, stride, padding = (list(op.attrs[key]) for key in ("kernel", "stride", "padding"))
    move(builder, "MaxPool", x, out, kernel_shape=kernel, strides=stride, pads=[*padding, *padding])


def _flatten(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    move(builder, "Flatten", x, out, axis=1)


def _channels_first(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Transpose", [x], out, perm=[0, 3, 1, 2])


def _concat(builder: OnnxBuilder, op: Op) -> None:
    builder.node("Concat", [port.name for port in op.inputs], op.out.name, axis=1)


def _slice(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    bounds = [
        builder.constant(f"{out}.{key}", [value])
        for key, value in (("from", op.attrs["start"]), ("to", op.attrs["stop"]))
    ]
    builder.node("Slice", [x, *bounds, builder.constant(f"{out}.axis", [1])], out)


def _take(builder: OnnxBuilder, op: Op) -> None:
    x, out = ends(op)
    builder.node("Gather", [x, builder.constant(f"{out}.places", list(op.attrs["places"]))], out, axis=1)


def _layer_norm(builder: OnnxBuilder, op: Op) -> None:
    """One node since opset 17; before, what it stands for."""
    x, out = ends(op)
    weight, bias, axis = builder.weight(op, "weight"), builder.weight(op, "bias"), len(op.out.shape)
    if builder.opset >= 17:
        builder.node("LayerNormalization", [x, weight, bias], out, axis=axis, epsilon=op.attrs["eps"])
        return
    centred = builder.node("Sub", [x, builder.node("ReduceMean", [x], f"{out}.mean", axes=[axis])], f"{out}.centred")
    square = builder.node("Mul", [centred, centred], f"{out}.square")
    variance = builder.node("ReduceMean", [square], f"{out}.variance", axes=[axis])
    floor = builder.constant(f"{out}.eps", op.attrs["eps"], "float32")
    scale = builder.node("Sqrt", [builder.node("Add", [variance, floor], f"{out}.add")], f"{out}.scale")
    unit = builder.node("Div", [centred, scale], f"{out}.unit")
    builder.node("Add", [builder.node("Mul", [unit, weight], f"{out}.mul"), bias], out)


def _products(builder: OnnxBuilder, op: Op, out: str) -> tuple[str, str]:
    """What the input and the hidden state give, each with its bias: two names."""
    x, h = op.inputs[0].name, op.inputs[1].name
    found = []
    for source, end in ((x, "ih"), (h, "hh")):
        keys = [key for key in (f"weight_{end}", f"bias_{end}") if key in op.weights]
        found.append(
            builder.node("Gemm", [source, *(builder.weight(op, key) for key in keys)], f"{out}.{end}", transB=1)
        )
    return found[0], found[1]


def _gru_cell(builder: OnnxBuilder, op: Op) -> None:
    """h' = n + z (h - n), which is (1 - z) n + z h with one product less."""
    out, h, size = op.out.name, op.inputs[1].name, op.out.size
    a, b = _products(builder, op, out)
    for source in (a, b):
        builder.split(source, [f"{source}.rz", f"{source}.n"], [2 * size, size])
    gates = builder.node("Sigmoid", [builder.node("Add", [f"{a}.rz", f"{b}.rz"], f"{out}.add")], f"{out}.gates")
    builder.split(gates, [f"{out}.r", f"{out}.z"], [size, size])
    reset = builder.node("Mul", [f"{out}.r", f"{b}.n"], f"{out}.reset")
    new = builder.node("Tanh", [builder.node("Add", [f"{a}.n", reset], f"{out}.add_n")], f"{out}.new")
    gap = builder.node("Sub", [h, new], f"{out}.gap")
    builder.node("Add", [new, builder.node("Mul", [f"{out}.z", gap], f"{out}.kept")], out)


def _lstm_cell(builder: OnnxBuilder, op: Op) -> None:
    h_out, c_out = (port.name for port in op.outputs)
    c, size = op.inputs[2].name, op.outputs[0].size
    both = builder.node("Add", list(_products(builder, op, h_out)), f"{h_out}.add")
    parts = [f"{h_out}.{gate}" for gate in "ifgo"]
    builder.split(both, parts, [size] * 4)
    i, f, o = (builder.node("Sigmoid", [f"{h_out}.{gate}"], f"{h_out}.{gate}_gate") for gate in "ifo")
    new = builder.node("Mul", [i, builder.node("Tanh", [f"{h_out}.g"], f"{h_out}.g_tanh")], f"{h_out}.new")
    builder.node("Add", [builder.node("Mul", [f, c], f"{h_out}.kept"), new], c_out)
    builder.node("Mul", [o, builder.node("Tanh", [c_out], f"{h_out}.c_tanh")], h_out)


def _mask(builder: OnnxBuilder, op: Op) -> None:
    x, mask, out = op.inputs[0].name, op.inputs[1].name, op.out.name
    forbidden = builder.constant(f"{out}.forbidden", -1e8, "float32")
    if not op.attrs["bits"]:
        allowed = builder.node("Cast", [mask], f"{out}.allowed", to=code("bool"))
        builder.node("Where", [allowed, x, forbidden], out)
        return
    real = builder.node("Cast", [mask], f"{out}.real", to=code("float32"))
    sides = [
        builder.node(
            "Gather",
            [real, builder.constant(f"{out}.at_{bit}", list(range(bit, 2 * op.out.size, 2)))],
            f"{out}.may_{bit}",
            axis=1,
        )
        for bit in (0, 1)
    ]
    gap = builder.node("Mul", [builder.node("Sub", sides, f"{out}.sub"), forbidden], f"{out}.push")
    builder.node("Add", [x, gap], out)


LAYERS: Mapping[str, Writer] = {
    "add": _add,
    "attention": _attention,
    "channels_first": _channels_first,
    "concat": _concat,
    "conv2d": _conv2d,
    "flatten": _flatten,
    "gemm": _gemm,
    "gru_cell": _gru_cell,
    "layer_norm": _layer_norm,
    "lstm_cell": _lstm_cell,
    "mask": _mask,
    "max_pool2d": _max_pool2d,
    "slice": _slice,
    "take": _take,
}
