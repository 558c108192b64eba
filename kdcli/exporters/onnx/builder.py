"""The nodes of an ONNX graph as they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdcli.exporters.onnx.image_bytes import Bytes
from kdcli.exporters.onnx.packed import decoded
from kdcli.graph.count import LEARNED
from kdcli.graph.operations import Op


def code(dtype: str) -> int:
    """ONNX's number of a dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def ends(op: Op) -> tuple[str, str]:
    """Names of the first input and the only output."""
    return op.inputs[0].name, op.out.name


class OnnxBuilder:
    """The nodes and initializers of one ONNX graph, in order. Names follow from the graph's, so they never change.

    `grids` are the values on a grid that only products in whole numbers read, each with its step; `pairs` those of
    them whose codes are written, with the names of their scale and zero; `bytes` those whose codes are bytes of an
    input; `convolved` the grids that convolutions of those come to at once; `dynamic` the values on dynamic grids whose
    codes are multiplied, with the grids; `made` is what nodes have put out.
    """

    def __init__(self, opset: int, half: bool = False, grids: Mapping[str, np.ndarray] | None = None) -> None:
        self.opset, self.half, self.grids = opset, half, grids or {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.pairs: dict[str, tuple[str, str]] = {}
        self.bytes: dict[str, Bytes] = {}
        self.convolved: dict[str, Op] = {}
        self.dynamic: dict[str, Op] = {}
        self.made: set[str] = set()
        self._names: set[str] = set()

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        self.made.add(output)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: str = "int64") -> str:
        """Add a number or a list that ONNX needs to be told; returns its name."""
        return self.node("Constant", [], name, value=numpy_helper.from_array(np.array(value, dtype), name))

    def weight(self, op: Op, key: str) -> str:
        """Add one of the operation's weights; returns its name."""
        name, array = f"{op.outputs[0].name}.{key}", np.ascontiguousarray(op.weights[key])
        if key in op.packed:
            return decoded(self, name, op.packed[key])
        if self.half and op.kind in LEARNED:
            stored = f"{name}.half"
            self.initializers.append(numpy_helper.from_array(array.astype(np.float16), stored))
            return self.node("Cast", [stored], name, to=code(array.dtype.name))  # onnxruntime does it once, at load
        return self.number(name, array)

    def number(self, name: str, array: np.ndarray) -> str:
        """Add numbers of the policy as they are, once; returns their name."""
        if name not in self._names:
            self._names.add(name)
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def raw(self, name: str, kind: int, shape: tuple[int, ...], data: bytes) -> str:
        """Add numbers of a type that NumPy has not, as bytes; returns their name."""
        self.initializers.append(onnx.TensorProto(name=name, data_type=kind, dims=shape, raw_data=data))
        return name

    def split(self, x: str, outputs: Sequence[str], sizes: Sequence[int]) -> None:
        """Cut `x` (B, F) into neighbours of `sizes`."""
        inputs = [x, self.constant(f"{outputs[0]}.sizes", list(sizes))]
        self.nodes.append(helper.make_node("Split", inputs, list(outputs), name=f"{outputs[0]}.split", axis=1))


Writer = Callable[[OnnxBuilder, Op], Any]
