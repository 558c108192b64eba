"""ONNX files made to harm: data elsewhere, code of others, bombs that unpack when loaded or run, lies in the record.

Those made from an export of kdcli are sealed again after the change, as anyone can do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from cases import Case, Law, of_main
from onnx import TensorProto, helper, numpy_helper
from onnx_bombs import BOMBS, add, bomb, branches
from safetensored import ENV, MORE, NETWORK, SPACE, TOP, VALUES
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
        # Without its seal it counts as edited: what is not refused acts, and is said to be another.
        yield of_main(seed, "onnx", f"unsealed {title}", made, Law.SAFE if title in SAFE else Law.REFUSED)


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
    from kdcli.agents.onnx.session import seal

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
    add(model, helper.make_node("If", ["yes"], ["branch"], then_branch=body, else_branch=body), yes=np.array(True))


def _sparse_outside(model: Model) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    _external(values, "/etc/passwd")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


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
    "an operation of another domain": bomb(helper.make_node("Touch", ["obs"], ["bomb"], domain="hacked")),
    "an unknown operation": bomb(helper.make_node("Touch", ["obs"], ["bomb"])),
    "an operation with escapes": bomb(helper.make_node("\x1b[2J\x1b]0;hacked\x07", ["obs"], ["bomb"])),
    "Python code": bomb(helper.make_node("PyOp", ["obs"], ["bomb"], domain="ai.onnx.contrib")),
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
    "branches in branches": branches(25),
    "branches of branches": branches(8),
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


# A field that comes twice counts as it comes last, in ONNX also where the first is no text.
RAW_LAWS = {
    "a megabyte of unknown fields": Law.RIGHT,
    "a text that is no text": Law.RIGHT,
    "twice": Law.OPEN,
}


def records() -> dict[str, Callable[[Model], Any]]:
    """Other records of what the file is."""
    found: dict[str, Callable[[Model], Any]] = {}
    for key in (*TOP, *MORE, "rule", "sampled_by", "normalizer", "state", "digest"):
        for title, value in VALUES.items():
            found[f"{key} is {title}"] = _record((key,), value)
    for place, keys in (("observation", SPACE), ("action", SPACE), ("network", NETWORK), ("rule", TOP)):
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
