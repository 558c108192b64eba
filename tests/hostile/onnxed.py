"""ONNX files made to harm: data elsewhere, code of others, bombs that unpack when loaded or run, lies in the record.

Those made from an export of kdcli are sealed again after the change, as anyone can do.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from cases import Case, Law, of_main
from onnx import TensorProto, helper, numpy_helper
from safetensored import _MORE, _NETWORK, _SPACE, _TOP, ENV, VALUES
from seeds import Seed

Model = onnx.ModelProto
KEY, BLANK = "kdcli", "0" * 64


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Every harm to every ONNX seed."""
    for seed in seeds.values():
        if seed.family == "onnx":
            yield from _of(seed)
        if seed.format == "onnx":
            yield from _records(seed)


def _of(seed: Seed) -> Iterator[Case]:
    for law, table in ((Law.REFUSED, REFUSED), (Law.SAFE, SAFE), (Law.OPEN, MISFIT), (Law.RIGHT, RIGHT)):
        for title, change in table.items():
            yield of_main(seed, "onnx", title, lambda change=change: changed(seed.data, change), law)
    for title, raw in RAW.items():
        yield of_main(seed, "onnx", title, lambda raw=raw: raw(seed.data), RAW_LAWS.get(title, Law.REFUSED))


def _records(seed: Seed) -> Iterator[Case]:
    for title, change in list(records().items())[::2]:
        yield of_main(seed, "record", title, lambda change=change: changed(seed.data, change), Law.SAFE)
    for title, change in list({**REFUSED, **SAFE}.items())[::3]:
        made = lambda change=change: changed(seed.data, change, sealed=False)  # noqa: E731
        yield of_main(seed, "onnx", f"unsealed {title}", made)


def changed(data: bytes, change: Callable[[Model], Any], sealed: bool = True) -> bytes:
    """The model changed, and sealed again where it was."""
    model = onnx.load_model_from_string(data)
    replaced = change(model)
    model = model if replaced is None else replaced
    entries = [entry for entry in model.metadata_props if entry.key == KEY]
    if not (sealed and entries):
        return model.SerializeToString()
    for entry in entries:
        entry.value = _blanked(entry.value)
    from kdcli.agents.runtime import seal

    return seal(model.SerializeToString())


def _blanked(text: str) -> str:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(record, dict) and isinstance(record.get("digest"), str) and len(record["digest"]) == 64:
        record["digest"] = BLANK
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _external(tensor: TensorProto, location: str, **more: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)


def _outside(location: str, **more: str) -> Callable[[Model], None]:
    return lambda model: _external(model.graph.initializer[0], location, **more)


def _outside_in_a_constant(model: Model) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "c")
    _external(tensor, "../../etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["outside"], value=tensor))


def _outside_in_a_function(model: Model) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "c")
    _external(tensor, "/etc/passwd")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("own", "F", [], ["y"], [node], list(model.opset_import)))


def _outside_in_a_branch(model: Model) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "c")
    _external(tensor, "/etc/passwd")
    body = helper.make_graph([], "body", [], [helper.make_tensor_value_info("c", 1, [3])], [tensor])
    _add(model, helper.make_node("If", ["yes"], ["branch"], then_branch=body, else_branch=body), yes=np.array(True))


def _sparse_outside(model: Model) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    _external(values, "/etc/passwd")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def _add(model: Model, *nodes: onnx.NodeProto, **constants: np.ndarray) -> None:
    """Nodes in front of the others; their result, by the last one's first output, is added to the action times zero."""
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


def _bomb(*nodes: onnx.NodeProto, **constants: Any) -> Callable[[Model], None]:
    """A graph whose last output is made of the bomb's, too."""

    def change(model: Model) -> None:
        _add(model, *nodes, *_used(nodes[-1].output[0]), **constants)
        action = model.graph.output[0]
        last = next(node for node in model.graph.node if action.name in node.output)
        last.output[list(last.output).index(action.name)] = "before_bomb"
        kind = action.type.tensor_type.elem_type
        model.graph.node.append(helper.make_node("Cast", ["bomb_1"], ["bomb_k"], to=kind))
        model.graph.node.append(helper.make_node("Add", ["before_bomb", "bomb_k"], [action.name]))

    return change


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _sized_by_input(count: int) -> list[onnx.NodeProto]:
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
        _bomb(helper.make_node(f"F{levels - 1}", ["obs"], ["bomb"], domain="own"))(model)

    return change


def _recursion(model: Model) -> None:
    opsets = [*model.opset_import, helper.make_opsetid("own", 1)]
    node = helper.make_node("F", ["x"], ["y"], domain="own")
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    _bomb(helper.make_node("F", ["obs"], ["bomb"], domain="own"))(model)


def _branches(levels: int) -> Callable[[Model], None]:
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
        _bomb(node, yes=np.array(True), v=np.float32(0))(model)

    return change


def _leaf() -> onnx.GraphProto:
    out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [])]
    return helper.make_graph([helper.make_node("Identity", ["v"], ["r"])], "b", [], out)


def _tensor(**fields: Any) -> Callable[[Model], None]:
    """The first weight with other fields."""

    def change(model: Model) -> None:
        tensor = model.graph.initializer[0]
        for key, value in fields.items():
            if isinstance(value, list):
                tensor.ClearField(key)
                getattr(tensor, key).extend(value)
            else:
                setattr(tensor, key, value)

    return change


def _weights(value: float) -> Callable[[Model], None]:
    """Every float weight of more than one number begins with `value`."""

    def change(model: Model) -> None:
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and numpy_helper.to_array(tensor).ndim > 1:
                array = numpy_helper.to_array(tensor).copy()
                array.reshape(-1)[0] = value
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    return change


def _opset(version: int) -> Callable[[Model], None]:
    return lambda model: setattr(model.opset_import[0], "version", version)


def _out(**fields: Any) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        old = model.graph.output[0]
        made = helper.make_tensor_value_info(old.name, fields.get("kind", 1), fields.get("shape", ["batch", 2]))
        old.CopyFrom(made)

    return change


def _in(kind: int, shape: list[Any]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        old = model.graph.input[0]
        old.CopyFrom(helper.make_tensor_value_info(old.name, kind, shape))

    return change


def _last_is(op: str, **attributes: Any) -> Callable[[Model], None]:
    """The action put through one more operation."""

    def change(model: Model) -> None:
        action = model.graph.output[0]
        last = next(node for node in model.graph.node if action.name in node.output)
        last.output[list(last.output).index(action.name)] = "before"
        more = {name: value for name, value in attributes.items() if name.startswith("input_")}
        rest = {name: value for name, value in attributes.items() if name not in more}
        for name, value in more.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        model.graph.node.append(helper.make_node(op, ["before", *more], [action.name], **rest))

    return change


BOMBS: dict[str, Callable[[Model], Any]] = {
    "ConstantOfShape of terabytes": _bomb(
        helper.make_node("ConstantOfShape", ["huge"], ["bomb"]), huge=_i(2**20, 2**20)
    ),
    "ConstantOfShape of 4 gigabytes": _bomb(helper.make_node("ConstantOfShape", ["huge"], ["bomb"]), huge=_i(2**30)),
    "ConstantOfShape by the input": _bomb(*_sized_by_input(1), many=_i(2**30, 2**10)),
    "ConstantOfShape of 3 gigabytes by the input": _bomb(*_sized_by_input(1), many=_i(2**20, 2**8)),
    "Expand": _bomb(helper.make_node("Expand", ["v", "huge"], ["bomb"]), v=np.float32(1), huge=_i(2**20, 2**20)),
    "Expand of 4 gigabytes": _bomb(
        helper.make_node("Expand", ["v", "huge"], ["bomb"]), v=np.float32(1), huge=_i(2**30)
    ),
    "Tile": _bomb(helper.make_node("Tile", ["v", "huge"], ["bomb"]), v=np.ones(4, np.float32), huge=_i(2**38)),
    "Range": _bomb(
        helper.make_node("Range", ["a", "b", "c"], ["bomb"]), a=np.int64(0), b=np.int64(2**40), c=np.int64(1)
    ),
    "Range of 4 gigabytes": _bomb(
        helper.make_node("Range", ["a", "b", "c"], ["bomb"]), a=np.int64(0), b=np.int64(2**29), c=np.int64(1)
    ),
    "RandomNormal": _bomb(helper.make_node("RandomNormal", [], ["bomb"], shape=[2**20, 2**20])),
    "OneHot": _bomb(
        helper.make_node("OneHot", ["at", "depth", "pair"], ["bomb"]),
        at=_i(0),
        depth=_i(2**40),
        pair=np.array([0, 1], np.float32),
    ),
    "Pad": _bomb(helper.make_node("Pad", ["v", "huge"], ["bomb"]), v=np.ones(4, np.float32), huge=_i(2**38, 2**38)),
    "Resize": _bomb(
        helper.make_node("Resize", ["v", "", "scales"], ["bomb"]),
        v=np.ones((1, 1, 4, 4), np.float32),
        scales=np.array([1, 1, 2**18, 2**18], np.float32),
    ),
    "Concat, doubling": _bomb(*_doubling(40)),
    "Concat, doubling to gigabytes": _bomb(*_doubling(29)),
    "MatMul of outer products": _bomb(
        helper.make_node("Expand", ["v", "wide"], ["a"]),
        helper.make_node("Expand", ["v", "tall"], ["b"]),
        helper.make_node("MatMul", ["b", "a"], ["bomb"]),
        v=np.ones((1, 1), np.float32),
        wide=_i(1, 2**20),
        tall=_i(2**20, 1),
    ),
    "ConvTranspose": _bomb(
        helper.make_node("ConvTranspose", ["v", "w"], ["bomb"], strides=[2**20, 2**20]),
        v=np.ones((1, 1, 9, 9), np.float32),
        w=np.ones((1, 1, 1, 1), np.float32),
    ),
    "a loop without end": _bomb(_loop(None), yes=np.array(True), v=np.float32(0)),
    "a loop of 2 ** 62 turns": _bomb(_loop(2**62), trips=np.int64(2**62), yes=np.array(True), v=np.float32(0)),
    "functions of functions": _functions(40),
    "a function of itself": _recursion,
}
REFUSED: dict[str, Callable[[Model], Any]] = {
    **BOMBS,
    "data in /etc": _outside("/etc/passwd"),
    "data above": _outside("../../etc/passwd"),
    "data beside": _outside("weights.bin"),
    "data in itself": _outside("policy.onnx", offset="0", length="48"),
    "data of terabytes": _outside("/dev/zero", offset="0", length=str(2**42)),
    "data in memory": _outside("*/_ORT_MEM_ADDR_/*", offset="140000000000000", length="48"),
    "data at a negative offset": _outside("weights.bin", offset="-1", length="-1"),
    "data outside in a constant": _outside_in_a_constant,
    "data outside in a function": _outside_in_a_function,
    "data outside in a branch": _outside_in_a_branch,
    "sparse data outside": _sparse_outside,
    "an operation of another domain": _bomb(helper.make_node("Touch", ["obs"], ["bomb"], domain="hacked")),
    "an unknown operation": _bomb(helper.make_node("Touch", ["obs"], ["bomb"])),
    "an operation with escapes": _bomb(helper.make_node("\x1b[2J\x1b]0;hacked\x07", ["obs"], ["bomb"])),
    "Python code": _bomb(helper.make_node("PyOp", ["obs"], ["bomb"], domain="ai.onnx.contrib")),
    "a weight of terabytes": _tensor(dims=[2**21, 2**21]),
    "a weight of nothing and terabytes": _tensor(dims=[2**42], raw_data=b""),
    "a weight of a negative size": _tensor(dims=[-1, -4]),
    "a weight whose size overflows": _tensor(dims=[2**32, 2**32, 4]),
    "a weight of an unknown dtype": _tensor(data_type=999),
    "a weight of no dtype": _tensor(data_type=0),
    "a weight of texts": lambda model: model.graph.initializer[0].CopyFrom(
        helper.make_tensor(model.graph.initializer[0].name, TensorProto.STRING, [1], [b"x"])
    ),
    "a weight that is short": _tensor(raw_data=b"x"),
    "NaN": _weights(float("nan")),
    "infinity": _weights(float("inf")),
    "no graph": lambda model: model.ClearField("graph"),
    "no nodes": lambda model: model.graph.ClearField("node"),
    "no inputs": lambda model: model.graph.ClearField("input"),
    "no outputs": lambda model: model.graph.ClearField("output"),
    "no weights": lambda model: model.graph.ClearField("initializer"),
    "no opset": lambda model: model.ClearField("opset_import"),
    "an opset of the future": _opset(2**40),
    "a negative opset": _opset(-1),
    "a format of the future": lambda model: setattr(model, "ir_version", 2**40),
    "a cycle": lambda model: model.graph.node[0].input.__setitem__(0, model.graph.node[0].output[0]),
    "actions of another size": _last_is("Concat", input_0=np.ones((1, 2), np.float32), axis=0),
}
# Same numbers under other names, or other numbers: a policy all the same.
SAFE: dict[str, Callable[[Model], Any]] = {
    "large weights": _weights(1e6),
    "branches in branches": _branches(25),
    "branches of branches": _branches(8),
    "actions of texts": _last_is("Cast", to=TensorProto.STRING),
    "an opset of zero": _opset(0),
    "a format of the past": lambda model: setattr(model, "ir_version", 1),
    "a negative format": lambda model: setattr(model, "ir_version", -1),
    "doubled nodes": lambda model: model.graph.node.extend([model.graph.node[0]]),
    "doubled weights": lambda model: model.graph.initializer.extend([model.graph.initializer[0]]),
    "a name of a megabyte": lambda model: setattr(model.graph.node[0], "name", "x" * 2**20),
}
# Ends that fit no env, of which kdcli may say that another one must be named.
MISFIT: dict[str, Callable[[Model], Any]] = {
    "an input of one axis": _in(TensorProto.FLOAT, ["batch"]),
    "an input of 2 ** 40 columns": _in(TensorProto.FLOAT, ["batch", 2**40]),
    "an input of texts": _in(TensorProto.STRING, ["batch", 3]),
    "an input of five rows": _in(TensorProto.FLOAT, [5, 3]),
    "an input with an escape for a size": _in(TensorProto.FLOAT, ["\x1b[31mbatch", 3]),
    "an output of another dtype": _out(kind=TensorProto.INT32),
    "an output of another shape": _out(shape=["batch", 7]),
}
RIGHT: dict[str, Callable[[Model], Any]] = {
    "written again": lambda model: None,
    "texts with escapes": lambda model: setattr(model, "producer_name", "\x1b[2J\x1b]0;hacked\x07"),
    "a documentation of 2 megabytes": lambda model: setattr(model, "doc_string", "x" * 2**21),
    "100,000 metadata": lambda model: (
        [model.metadata_props.add(key=f"k{n}", value="") for n in range(100_000)] and None
    ),
    "an unused weight of 8 megabytes": lambda model: model.graph.initializer.append(
        numpy_helper.from_array(np.zeros(2**21, np.float32), "unused")
    ),
    "a training graph": lambda model: model.training_info.add().algorithm.node.append(
        helper.make_node("Touch", [], ["x"])
    ),
}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def _nested_messages(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph in an attribute of ..., as bytes."""
    body = b""
    for _ in range(levels):
        attribute = b"\x32" + _varint(len(body)) + body  # AttributeProto.g
        node = b"\x2a" + _varint(len(attribute)) + attribute  # NodeProto.attribute
        body = b"\x0a" + _varint(len(node)) + node  # GraphProto.node
    return b"\x08\x08\x3a" + _varint(len(body)) + body


RAW: dict[str, Callable[[bytes], bytes]] = {
    "only a version": lambda data: b"\x08\x08",
    "messages in messages": lambda data: _nested_messages(50),
    "messages in messages in messages": lambda data: _nested_messages(20_000),
    "a field of terabytes": lambda data: b"\x08\x08\x3a" + _varint(2**42) + b"x",
    "a field of 2 ** 64 bytes": lambda data: b"\x08\x08\x3a" + b"\xff" * 9 + b"\x01",
    "a number without end": lambda data: b"\x08" + b"\xff" * 1000,
    "groups in groups": lambda data: b"\x08\x08" + b"\x0b" * 100_000,
    "another wire type": lambda data: b"\x08\x08\x3d" + data[3:],
    "a text that is no text": lambda data: b"\x08\x08\x12\x02\xff\xfe" + data[2:],
    "a megabyte of unknown fields": lambda data: data + b"\xfa\x3f" + _varint(2**20) + bytes(2**20),
    "twice": lambda data: data + data,
    "noise behind": lambda data: data + bytes(range(256)),
}


RAW_LAWS = {"a megabyte of unknown fields": Law.RIGHT, "twice": Law.OPEN}


def records() -> dict[str, Callable[[Model], Any]]:
    """Other records of what the file is."""
    found: dict[str, Callable[[Model], Any]] = {}
    for key in (*_TOP, *_MORE, "rule", "sampled_by", "normalizer", "state", "digest"):
        for title, value in VALUES.items():
            found[f"{key} is {title}"] = _record((key,), value)
    for place, keys in (("observation", _SPACE), ("action", _SPACE), ("network", _NETWORK), ("rule", _TOP)):
        for key in keys:
            for title, value in list(VALUES.items())[::2]:
                found[f"{place}/{key} is {title}"] = _record((place, key), value)
    for title, env in {
        "a module": {**ENV, "id": "canary_module:X-v0"},
        "an entry point": {**ENV, "kwargs": {"entry_point": "canary_module:make"}},
        "escapes": {**ENV, "id": "\x1b[2J\x1b]0;hacked\x07-v0"},
    }.items():
        found[f"env is {title}"] = _record(("env",), env)
    texts = {
        "no JSON": "{",
        "lists in lists": "[" * 100_000,
        "a large number": '{"kind":' + "9" * 10_000 + "}",
        "a list": "[]",
        "empty": "",
        "half a letter": '"\\ud800"',
    }
    return found | {f"record is {title}": _text(text) for title, text in texts.items()}


def _record(path: tuple[str, ...], value: Any) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        [entry] = [entry for entry in model.metadata_props if entry.key == KEY]
        record = inner = json.loads(entry.value)
        for key in path[:-1]:
            inner = inner[key]
        if isinstance(inner, dict):
            inner[path[-1]] = value
        entry.value = json.dumps(record, sort_keys=True, separators=(",", ":"))

    return change


def _text(text: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        [entry] = [entry for entry in model.metadata_props if entry.key == KEY]
        entry.value = text

    return change
