"""Weights on few levels in ONNX: codes and what they stand for, made floats by plain operations.

onnxruntime does these once, when it loads the file, so that nothing is slower. It would do a DequantizeLinear at each
call (measured: up to 16 times slower), which is why there is one only where it becomes part of a product in whole
numbers: between activations and weights of 8 bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto

from kdcli.graph.operations import Graph, Op
from kdcli.networks.packed_weights import Packed, pack_bits

_NATIVE = 21  # the first operator set with tensors of four bits
NO_PAIRS = 28  # onnxruntime has no QuantizeLinear of this operator set
_EXACT = 1e-6  # how far a bias may lie from a whole number of steps, relative
_MOVES = ("flatten", "max_pool2d")
# Lowest and highest code of a grid -> the type that has just these.
CODES = {(0, 255): "uint8", (-128, 127): "int8"}


class Page(Protocol):
    """What is written on."""

    opset: int
    grids: Mapping[str, np.ndarray]
    pairs: dict[str, tuple[str, str]]
    made: set[str]

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        ...

    def constant(self, name: str, value: Any, dtype: str = "int64") -> str:
        """Add an integer constant; its name."""
        ...

    def number(self, name: str, array: np.ndarray) -> str:
        """Add a constant in the numbers the graph computes in; its name."""
        ...

    def raw(self, name: str, kind: int, shape: tuple[int, ...], data: bytes) -> str:
        """Add a tensor from its bytes; its name."""
        ...


def decoded(page: Page, name: str, packed: Packed) -> str:
    """Nodes that give the weights; returns their name."""
    if packed.half:
        kind = TensorProto.FLOAT16 if packed.half == "float16" else TensorProto.BFLOAT16
        stored = page.raw(f"{name}.h", kind, packed.codes.shape, packed.codes.astype("<u2").tobytes())
        return page.node("Cast", [stored], name, to=TensorProto.FLOAT)
    if packed.levels is not None:
        codes = codes_of(page, f"{name}.c", packed, TensorProto.INT32)
        return page.node("Gather", [page.number(f"{name}.l", packed.levels), codes], name)
    return _linear(page, name, packed)


def _linear(page: Page, name: str, packed: Packed) -> str:
    """(code - zero) * scale, the codes counted from 0."""
    assert packed.scale is not None
    codes = codes_of(page, f"{name}.c", packed, TensorProto.FLOAT)
    zero = np.asarray((0 if packed.zero is None else packed.zero) - np.int32(packed.range[0]), np.float32)
    ones = (1,) * (packed.codes.ndim - 1)
    first, scale = (a.reshape(-1, *ones) if a.ndim else a for a in (zero, packed.scale))
    steps = page.node("Sub", [codes, page.number(f"{name}.z", first)], f"{name}.s")
    return page.node("Mul", [steps, page.number(f"{name}.f", scale)], name)


def codes_of(page: Page, name: str, packed: Packed, to: int) -> str:
    """Codes counted from 0, in the weights' shape, as the type `to`."""
    unsigned = (packed.codes.astype(np.int64) - packed.range[0]).astype(np.uint16)
    if packed.bits > 4:
        stored = page.number(f"{name}.u", unsigned.astype(np.uint16 if packed.bits > 8 else np.uint8))
    elif packed.bits > 2 and page.opset >= _NATIVE:
        stored = page.raw(f"{name}.u", TensorProto.UINT4, unsigned.shape, pack_bits(unsigned, 4).tobytes())
    else:
        stored = _apart(page, name, unsigned, 2 if packed.bits <= 2 else 4)
    return page.node("Cast", [stored], name, to=to)


def _apart(page: Page, name: str, codes: np.ndarray, bits: int) -> str:
    """Several codes a byte, told apart by a table of all bytes."""
    data = page.number(f"{name}.u", pack_bits(codes, bits))
    places = page.node("Cast", [data], f"{name}.i", to=TensorProto.INT32)
    table = (np.arange(256)[:, None] >> np.arange(0, 8, bits) & ((1 << bits) - 1)).astype(np.uint8)
    found = page.node("Gather", [page.number(f"codes_of_{bits}_bits", table), places], f"{name}.g")
    if codes.size * bits % 8:
        flat = page.node("Reshape", [found, page.constant(f"{name}.one", [-1])], f"{name}.r")
        ends = [page.constant(f"{name}.{key}", [value]) for key, value in (("a", 0), ("b", codes.size))]
        found = page.node("Slice", [flat, *ends], f"{name}.t")
    return page.node("Reshape", [found, page.constant(f"{name}.d", list(codes.shape))], f"{name}.w")


def integer_grids(graph: Graph, opset: int) -> dict[str, np.ndarray]:
    """Values on a grid that only products in whole numbers read, each with its step: pairs of QuantizeLinear and
    DequantizeLinear are for these alone.

    Of a float weight behind such a pair onnxruntime makes one of 8 bits by itself.
    """
    if opset >= NO_PAIRS:
        return {}
    found: dict[str, np.ndarray] = {}
    for op in graph.ops:
        if op.kind == "quantize" and (op.attrs["low"], op.attrs["high"]) in CODES and op.weights["scale"].ndim == 0:
            found[op.out.name] = op.weights["scale"]
        elif op.kind in _MOVES and op.inputs[0].name in found:
            found[op.out.name] = found[op.inputs[0].name]
    readers = {port.name: op for op in graph.ops for port in op.inputs}
    for op in reversed(graph.ops):
        moved = op.kind in _MOVES and op.outputs[0].name in found
        rounded = op.kind != "conv2d" or _after(op, readers) in found
        for port in op.inputs:
            if port.name in found and not moved and (not rounded or _steps(op, found[port.name]) is None):
                del found[port.name]
    return {name: step for name, step in found.items() if name not in {port.name for port in graph.outputs}}


def _after(op: Op, readers: Mapping[str, Op]) -> str:
    """The grid that a convolution's sums come to, a ReLU at most between: there is none in whole numbers without."""
    following = readers.get(op.out.name)
    if following is not None and following.kind == "relu":
        following = readers.get(following.out.name)
    return following.out.name if following is not None and following.kind == "quantize" else ""


def _steps(op: Op, step: np.ndarray) -> np.ndarray | None:
    """What one step of the grid times one of the weight's is, () or (O,), for a product in whole numbers; None for
    others: that takes weights of 8 bits times a scale, and a bias of whole steps.
    """
    packed, bias = op.packed.get("weight"), op.weights.get("bias")
    if op.kind not in ("conv2d", "gemm") or packed is None or packed.scale is None or packed.bits != 8:
        return None
    if op.kind == "gemm" and len(op.inputs[0].shape) != 1:  # rows, which are put apart around the product
        return None
    steps = step.astype(np.float64) * packed.scale.astype(np.float64)
    if bias is not None:
        counts = bias.astype(np.float64) / steps
        if (np.abs(counts - np.round(counts)) > _EXACT * np.maximum(1.0, np.abs(counts))).any():
            return None
    return steps


def move(page: Page, kind: str, x: str, out: str, **attributes: Any) -> None:
    """A node that only moves numbers: of a value on a grid, its codes; floats are made right before a product."""
    if x not in page.pairs:
        page.node(kind, [x], out, **attributes)
        return
    page.node(kind, [f"{x}.codes"], f"{out}.codes", **attributes)
    page.pairs[out] = page.pairs[x]


def whole(page: Page, op: Op) -> list[str] | None:
    """Weight and bias of a product in whole numbers, which onnxruntime makes of it; None where it is none."""
    step = page.grids.get(op.inputs[0].name)
    steps = None if step is None else _steps(op, step)
    if steps is None:
        return None
    x, name, packed = op.inputs[0].name, op.outputs[0].name, op.packed["weight"]
    assert packed.scale is not None
    if x not in page.made:
        page.node("DequantizeLinear", [f"{x}.codes", *page.pairs[x]], x)
    zero = np.zeros(packed.scale.shape, np.int8) if packed.zero is None else packed.zero.astype(np.int8)
    found = [_dequantized(page, f"{name}.weight", packed.codes.astype(np.int8), packed.scale, zero)]
    if "bias" in op.weights:
        counts = np.round(op.weights["bias"].astype(np.float64) / steps).astype(np.int32)
        found.append(_dequantized(page, f"{name}.bias", counts, steps.astype(np.float32)))
    return found


def _dequantized(page: Page, name: str, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None) -> str:
    return page.node(
        "DequantizeLinear", _coded(page, name, codes, scale, zero), name, **({"axis": 0} if scale.ndim else {})
    )


def _coded(page: Page, name: str, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None) -> list[str]:
    """Codes, what a step of them is, and the code of 0 where it is not 0."""
    inputs = [page.number(f"{name}.c", codes), page.number(f"{name}.f", scale)]
    return inputs if zero is None else [*inputs, page.number(f"{name}.z", zero)]


def convolutions_of_bytes(graph: Graph, grids: Mapping[str, np.ndarray], of_bytes: Collection[str]) -> dict[str, Op]:
    """Convolutions that read bytes of an input, each with the grid that its sums come to, a ReLU at most between.

    They are written as what they are: of a DequantizeLinear of an input, onnxruntime 1.32 makes no product in whole
    numbers (measured on an Atari agent: 223 us a call, and 113 us so).
    """
    readers = {port.name: op for op in graph.ops for port in op.inputs}
    read = Counter([port.name for op in graph.ops for port in op.inputs] + [port.name for port in graph.outputs])
    by_name = {op.out.name: op for op in graph.ops if op.kind == "quantize"}
    found = {}
    for op in graph.ops:
        if op.kind == "conv2d" and op.inputs[0].name in of_bytes:
            grid = by_name[_after(op, readers)]
            alone = read[op.out.name] == read[grid.inputs[0].name] == 1  # nobody else reads what is not written then
            cuts = grid.inputs[0].name == op.out.name or float(grid.weights["zero"]) == grid.attrs["low"]
            if alone and cuts:
                found[op.out.name] = grid
    return found


def convolve(page: Page, op: Op, grid: Op, **attributes: Any) -> None:
    """From codes to codes: rounding to the grid cuts off what a ReLU would."""
    x, name, out, packed = op.inputs[0].name, op.out.name, grid.out.name, op.packed["weight"]
    steps = _steps(op, page.grids[x])
    assert packed.scale is not None
    assert steps is not None
    zero = np.zeros(packed.scale.shape, np.int8) if packed.zero is None else packed.zero.astype(np.int8)
    weight = _coded(page, f"{name}.weight", packed.codes.astype(np.int8), packed.scale, zero)
    counts = np.round(op.weights["bias"].astype(np.float64) / steps).astype(np.int32) if "bias" in op.weights else None
    bias = [] if counts is None else [page.number(f"{name}.bias.c", counts)]
    page.pairs[out] = pair_of(page, grid)
    page.node(
        "QLinearConv", [f"{x}.codes", *page.pairs[x], *weight, *page.pairs[out], *bias], f"{out}.codes", **attributes
    )


def pair_of(page: Page, grid: Op) -> tuple[str, str]:
    """Scale and zero of a grid, whose codes are of a type that has just these."""
    out, kind = grid.out.name, CODES[grid.attrs["low"], grid.attrs["high"]]
    zero = grid.weights["zero"].astype(kind)
    return page.number(f"{out}.scale", grid.weights["scale"]), page.number(f"{out}.zero", zero)
