"""What an ONNX file holds and computes, counted in the file: what it says of itself does not count."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def count(model: onnx.ModelProto) -> tuple[int, int, int]:
    """Parameters, constants and multiply-adds, from the numbers in the file and the layers that use them."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in _LEARNED]
    kinds = (*_CONVOLUTIONS, "MatMul", "Reshape")
    plain = all(sizes.keys() >= {*_learned(node)} for node in layers)
    whole = {} if plain and not any(node.op_type in kinds for node in model.graph.node) else _shapes(model)
    shapes = {name: shape[1:] for name, shape in whole.items()}
    made = {name: node for node in model.graph.node for name in node.output}
    beside, added = _of_sums(model, sizes)
    learned = [name for node in layers for name in _learned(node)] + added
    numbers = {name: _behind(name, made) & sizes.keys() for name in learned}
    decoded = {name: sizes.get(name, prod(whole.get(name, (0,)))) for name in numbers}
    stored = set().union(*numbers.values(), beside, *(node.input[4:6] for node in layers if node.op_type == _IN_CODES))
    constants = sum(size for name, size in sizes.items() if name not in stored)
    places = _places(model, shapes)
    products = [node for node in layers if node.op_type != "LayerNormalization"]
    macs = sum(decoded[_learned(node)[0]] * places.get(node.output[0], 1) for node in products)
    return sum(decoded.values()), constants, macs + _between(model, shapes, sizes)


_IN_CODES = "QLinearConv"
_CONVOLUTIONS = ("Conv", _IN_CODES)
_SUMS, _BEHIND_SUMS = "MatMulInteger", ("Cast", "Mul", "Mul")  # as they are written, and no further
_LEARNED = (*_CONVOLUTIONS, _SUMS, "Gemm", "LayerNormalization")


def _learned(node: onnx.NodeProto) -> list[str]:
    """Weight and bias of a layer; codes stand among scales and zeros."""
    if node.op_type == _SUMS:
        return list(node.input[1:2])
    return [*node.input[3:4], *node.input[8:]] if node.op_type == _IN_CODES else list(node.input[1:])


def _of_sums(model: onnx.ModelProto, sizes: Mapping[str, int]) -> tuple[set[str], list[str]]:
    """Numbers behind sums of whole numbers: scales and zeros of their weights, and the biases added to them."""
    readers = {name: node for node in model.graph.node for name in node.input}
    beside, biases = set[str](), list[str]()
    for node in model.graph.node:
        if node.op_type == _SUMS:
            beside |= {*node.input[3:]}
            after = readers.get(node.output[0])
            for _ in _BEHIND_SUMS:
                if after is not None and after.op_type in _BEHIND_SUMS:
                    beside |= {*after.input} & sizes.keys()
                    after = readers.get(after.output[0])
            biases += [name for name in after.input if name in sizes] if after and after.op_type == "Add" else []
    return beside, biases


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Name of a value -> its shape, 0 where it is not known."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.output]
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}


def _places(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Name of a layer's output -> places where each of its products is done once: those of an image, or rows."""
    found = {}
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS and node.output[0] in shapes:
            found[node.output[0]] = prod(shapes[node.output[0]][1:])
        elif node.op_type == "Reshape" and node.output[0] in shapes and shapes.get(node.input[0]):
            # Rows are multiplied as more of the batch and put apart again.
            found[node.input[0]] = prod(shapes[node.output[0]]) // max(1, prod(shapes[node.input[0]]))
    return found


def _between(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]) -> int:
    """Multiply-adds of values with each other, as of queries with keys; none of them is a number in the file."""
    nodes = [node for node in model.graph.node if node.op_type == "MatMul" and not sizes.keys() & {*node.input}]
    known = [node for node in nodes if shapes.get(node.output[0]) and shapes.get(node.input[0])]
    return sum(prod(shapes[node.output[0]]) * shapes[node.input[0]][-1] for node in known)


def _behind(name: str, made: Mapping[str, onnx.NodeProto]) -> set[str]:
    """What a value is computed from, itself included: the codes and levels of packed weights."""
    found, rest = set[str](), [name]
    while rest:
        last = rest.pop()
        if last not in found:
            found.add(last)
            rest += made[last].input if last in made else []
    return found
