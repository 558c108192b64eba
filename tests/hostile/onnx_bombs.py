"""ONNX graphs that unpack to terabytes or run without end, when loaded or when run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Model = onnx.ModelProto


def add(model: Model, *nodes: onnx.NodeProto, **constants: np.ndarray) -> None:
    """Put nodes in front of the others, and the constants that they need."""
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def _used(result: str) -> list[onnx.NodeProto]:
    """Nodes that make a number of a tensor of any size: a bomb that nobody uses would be dropped."""
    return [
        helper.make_node("Cast", [result], ["bomb_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["bomb_f"], ["bomb_1"], keepdims=0),
    ]


def bomb(*nodes: onnx.NodeProto, **constants: Any) -> Callable[[Model], None]:
    """A graph whose last output is made of the bomb's, too."""

    def change(model: Model) -> None:
        add(model, *nodes, *_used(nodes[-1].output[0]), **constants)
        action = model.graph.output[0]
        last = next(node for node in model.graph.node if action.name in node.output)
        last.output[list(last.output).index(action.name)] = "before_bomb"
        kind = action.type.tensor_type.elem_type
        model.graph.node.append(helper.make_node("Cast", ["bomb_1"], ["bomb_k"], to=kind))
        model.graph.node.append(helper.make_node("Add", ["before_bomb", "bomb_k"], [action.name]))

    return change


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _sized_by_input() -> list[onnx.NodeProto]:
    """A shape computed from the observation, so that nothing can fold it before it is run."""
    return [
        helper.make_node("Shape", ["obs"], ["s"]),
        helper.make_node("Mul", ["s", "many"], ["huge"]),
        helper.make_node("ConstantOfShape", ["huge"], ["bomb"]),
    ]


def _doubling(levels: int) -> list[onnx.NodeProto]:
    nodes = [helper.make_node("Identity", ["obs"], ["d0"])]
    return nodes + [helper.make_node("Concat", [f"d{n}", f"d{n}"], [f"d{n + 1}"], axis=0) for n in range(levels)]


def _loop(trips: int | None) -> onnx.NodeProto:
    """A loop of `trips` turns, or without end."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Identity", ["v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, []),
        ],
    )
    return helper.make_node("Loop", ["" if trips is None else "trips", "yes", "v"], ["bomb"], body=body)


def _functions(levels: int) -> Callable[[Model], None]:
    """Functions that call the one before twice: 2 ** levels nodes when written out."""

    def change(model: Model) -> None:
        opsets = [*model.opset_import, helper.make_opsetid("own", 1)]
        for n in range(levels):
            inner = ("Identity", "") if n == 0 else (f"F{n - 1}", "own")
            nodes = [
                helper.make_node(inner[0], ["x"], ["m"], domain=inner[1]),
                helper.make_node(inner[0], ["m"], ["y"], domain=inner[1]),
            ]
            model.functions.append(helper.make_function("own", f"F{n}", ["x"], ["y"], nodes, opsets))
        model.opset_import.append(helper.make_opsetid("own", 1))
        bomb(helper.make_node(f"F{levels - 1}", ["obs"], ["bomb"], domain="own"))(model)

    return change


def _recursion(model: Model) -> None:
    opsets = [*model.opset_import, helper.make_opsetid("own", 1)]
    node = helper.make_node("F", ["x"], ["y"], domain="own")
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    bomb(helper.make_node("F", ["obs"], ["bomb"], domain="own"))(model)


def branches(levels: int) -> Callable[[Model], None]:
    """An If in an If in an If ..."""

    def change(model: Model) -> None:
        out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [])]
        body = helper.make_graph([helper.make_node("Identity", ["v"], ["r"])], "b", [], out)
        for _ in range(levels):
            node = helper.make_node(
                "If", ["yes"], ["r"], then_branch=body, else_branch=copy.deepcopy(body) if levels < 9 else _leaf()
            )
            body = helper.make_graph([node], "b", [], out)
        node = helper.make_node("If", ["yes"], ["bomb"], then_branch=body, else_branch=body if levels < 9 else _leaf())
        bomb(node, yes=np.array(True), v=np.float32(0))(model)

    return change


def _leaf() -> onnx.GraphProto:
    out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [])]
    return helper.make_graph([helper.make_node("Identity", ["v"], ["r"])], "b", [], out)


BOMBS: dict[str, Callable[[Model], Any]] = {
    "ConstantOfShape of terabytes": bomb(
        helper.make_node("ConstantOfShape", ["huge"], ["bomb"]), huge=_i(2**20, 2**20)
    ),
    "ConstantOfShape of 4 gigabytes": bomb(helper.make_node("ConstantOfShape", ["huge"], ["bomb"]), huge=_i(2**30)),
    "ConstantOfShape by the input": bomb(*_sized_by_input(), many=_i(2**30, 2**10)),
    "ConstantOfShape of 3 gigabytes by the input": bomb(*_sized_by_input(), many=_i(2**20, 2**8)),
    "Expand": bomb(helper.make_node("Expand", ["v", "huge"], ["bomb"]), v=np.float32(1), huge=_i(2**20, 2**20)),
    "Expand of 4 gigabytes": bomb(helper.make_node("Expand", ["v", "huge"], ["bomb"]), v=np.float32(1), huge=_i(2**30)),
    "Tile": bomb(helper.make_node("Tile", ["v", "huge"], ["bomb"]), v=np.ones(4, np.float32), huge=_i(2**38)),
    "Range": bomb(
        helper.make_node("Range", ["a", "b", "c"], ["bomb"]), a=np.int64(0), b=np.int64(2**40), c=np.int64(1)
    ),
    "Range of 4 gigabytes": bomb(
        helper.make_node("Range", ["a", "b", "c"], ["bomb"]), a=np.int64(0), b=np.int64(2**29), c=np.int64(1)
    ),
    "RandomNormal": bomb(helper.make_node("RandomNormal", [], ["bomb"], shape=[2**20, 2**20])),
    "OneHot": bomb(
        helper.make_node("OneHot", ["at", "depth", "pair"], ["bomb"]),
        at=_i(0),
        depth=_i(2**40),
        pair=np.array([0, 1], np.float32),
    ),
    "Pad": bomb(helper.make_node("Pad", ["v", "huge"], ["bomb"]), v=np.ones(4, np.float32), huge=_i(2**38, 2**38)),
    "Resize": bomb(
        helper.make_node("Resize", ["v", "", "scales"], ["bomb"]),
        v=np.ones((1, 1, 4, 4), np.float32),
        scales=np.array([1, 1, 2**18, 2**18], np.float32),
    ),
    "Concat, doubling": bomb(*_doubling(40)),
    "Concat, doubling to gigabytes": bomb(*_doubling(29)),
    "MatMul of outer products": bomb(
        helper.make_node("Expand", ["v", "wide"], ["a"]),
        helper.make_node("Expand", ["v", "tall"], ["b"]),
        helper.make_node("MatMul", ["b", "a"], ["bomb"]),
        v=np.ones((1, 1), np.float32),
        wide=_i(1, 2**20),
        tall=_i(2**20, 1),
    ),
    "ConvTranspose": bomb(
        helper.make_node("ConvTranspose", ["v", "w"], ["bomb"], strides=[2**20, 2**20]),
        v=np.ones((1, 1, 9, 9), np.float32),
        w=np.ones((1, 1, 1, 1), np.float32),
    ),
    "a loop without end": bomb(_loop(None), yes=np.array(True), v=np.float32(0)),
    "a loop of 2 ** 62 turns": bomb(_loop(2**62), trips=np.int64(2**62), yes=np.array(True), v=np.float32(0)),
    "functions of functions": _functions(40),
    "a function of itself": _recursion,
}
