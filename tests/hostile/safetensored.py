"""Safetensors files that lie about their tensors, and agent files whose record, sealed again, asks for too much."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

from cases import Case, Law, of_main
from seeds import Seed

Header = dict[str, Any]


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Every harm to every seed in this format."""
    for seed in seeds.values():
        if seed.family == "safetensors":
            yield from _of(seed)
        if seed.format == "agent":
            yield from _records(seed)


def _of(seed: Seed) -> Iterator[Case]:
    for title, change in HEADERS.items():
        yield of_main(seed, "safetensors", title, lambda change=change: reheaded(seed.data, change))
    for law, table in ((Law.REFUSED, RAW), (Law.RIGHT, HARMLESS)):
        for title, raw in table.items():
            yield of_main(seed, "safetensors", title, lambda raw=raw: raw(*split(seed.data)), law)


def _records(seed: Seed) -> Iterator[Case]:
    for title, change in RECORDS.items():
        yield of_main(seed, "record", title, lambda change=change: resealed(seed.data, change), Law.SAFE)
    for number in (math.nan, math.inf, -math.inf):
        data = resealed(with_number(seed.data, number), lambda record: None)
        yield of_main(seed, "record", f"a weight is {number}", lambda data=data: data)


def split(data: bytes) -> tuple[bytes, bytes]:
    """The header's text and the bytes of the tensors."""
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size], data[8 + size :]


def joined(header: bytes, body: bytes) -> bytes:
    """The inverse of `split`."""
    return len(header).to_bytes(8, "little") + header + body


def reheaded(data: bytes, change: Callable[[Header, list[str], int], Any]) -> bytes:
    """The file with its header changed by `change(header, names of tensors, bytes of tensors)`."""
    head, body = split(data)
    header = json.loads(head)
    names = sorted(
        (name for name in header if name != "__metadata__"), key=lambda name: -header[name]["data_offsets"][1]
    )
    changed = change(header, names, len(body))
    return joined(json.dumps(header if changed is None else changed).encode(), body)


def _set(key: str, value: Any) -> Callable[[Header, list[str], int], None]:
    def change(header: Header, names: list[str], _: int) -> None:
        header[names[0]][key] = value

    return change


def _overlap(header: Header, names: list[str], _: int) -> None:
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]


def _beyond(header: Header, names: list[str], size: int) -> None:
    start, end = header[names[0]]["data_offsets"]
    header[names[0]]["data_offsets"] = [start + size, end + size]


def _gap(header: Header, names: list[str], _: int) -> None:
    for name in names:
        header[name]["data_offsets"] = [end + 4 for end in header[name]["data_offsets"]]


def _renamed(new: str) -> Callable[[Header, list[str], int], None]:
    def change(header: Header, names: list[str], _: int) -> None:
        header[new] = header.pop(names[0])

    return change


HEADERS: dict[str, Callable[[Header, list[str], int], Any]] = {
    "offsets that overlap": _overlap,
    "all the same offsets": lambda h, names, _: (
        [h[n].update(data_offsets=h[names[0]]["data_offsets"]) for n in names][:0] or h
    ),
    "offsets beyond the file": _beyond,
    "a gap": _gap,
    "offsets reversed": lambda h, names, _: h[names[0]]["data_offsets"].reverse(),
    "negative offsets": _set("data_offsets", [-8, 0]),
    "offsets of terabytes": _set("data_offsets", [0, 2**42]),
    "offsets beyond 64 bits": _set("data_offsets", [0, 2**70]),
    "offsets that are texts": _set("data_offsets", ["0", "4"]),
    "one offset": _set("data_offsets", [0]),
    "no offsets": lambda h, names, _: h[names[0]].pop("data_offsets") and None,
    "a shape of terabytes": _set("shape", [2**21, 2**21]),
    "a shape that overflows": _set("shape", [2**32, 2**32, 2]),
    "a shape of nothing": _set("shape", [0, 2**60]),
    "a negative shape": _set("shape", [-1, -4]),
    "a shape of fractions": _set("shape", [1.5]),
    "a shape that is a text": _set("shape", "3"),
    "a thousand axes": _set("shape", [1] * 1000),
    "an unknown dtype": _set("dtype", "F1024"),
    "a dtype that is a number": _set("dtype", 7),
    "complex": _set("dtype", "C64"),
    "eight-bit floats": _set("dtype", "F8_E4M3"),
    "four-bit floats": _set("dtype", "F4"),
    "bfloat16 of the same bytes": _set("dtype", "BF16"),
    "int32 of the same bytes": _set("dtype", "I32"),
    "a tensor that is a list": lambda h, names, _: h.update({names[0]: [1, 2]}),
    "a tensor that is nothing": lambda h, names, _: h.update({names[0]: None}),
    "a tensor missing": lambda h, names, _: h.pop(names[0]) and None,
    "no tensors": lambda h, names, _: {"__metadata__": h.get("__metadata__", {})},
    "metadata that is a list": lambda h, names, _: h.update(__metadata__=[1]),
    "metadata that is a text": lambda h, names, _: h.update(__metadata__="kdcli"),
    "metadata of numbers": lambda h, names, _: h.update(__metadata__={"kdcli": 7}),
    "metadata of nothing": lambda h, names, _: h.update(__metadata__={"kdcli": None}),
    "metadata that is no JSON": lambda h, names, _: h.update(__metadata__={"kdcli": "{"}),
    "metadata that is a number": lambda h, names, _: h.update(__metadata__={"kdcli": "7"}),
    "metadata with an unsealed record": lambda h, names, _: h.update(__metadata__={"kdcli": '{"record": "{}"}'}),
    "metadata with a seal that is a list": lambda h, names, _: h.update(
        __metadata__={"kdcli": '{"sha256": [], "record": "{}"}'}
    ),
    "metadata in nested lists": lambda h, names, _: h.update(__metadata__={"kdcli": "[" * 100_000}),
    "a name that leads elsewhere": _renamed("../../x"),
    "a name with escapes": _renamed("\x1b[31m\x1b]0;hacked\x07\r\nkdcli: all is well"),
    "a name of a megabyte": _renamed("x" * 2**20),
    "a name that is half a letter": _renamed("\ud800"),
    "a header that is a list": lambda h, names, _: [h],
    "a header that is a text": lambda h, names, _: "header",
    "a header that is nothing": lambda h, names, _: [],
    "100,000 tensors": lambda h, names, _: {**h, **{f"t{n}": {**h[names[0]]} for n in range(100_000)}},
}


def _sized(size: int) -> Callable[[bytes, bytes], bytes]:
    return lambda head, body: size.to_bytes(8, "little") + head + body


RAW: dict[str, Callable[[bytes, bytes], bytes]] = {
    "a header of 2 ** 64 - 1 bytes": _sized(2**64 - 1),
    "a header of 2 ** 63 bytes": _sized(2**63),
    "a header of a terabyte": _sized(2**40),
    "a header of 100 megabytes": _sized(100_000_000),
    "a header longer than the file": lambda head, body: _sized(len(head) + len(body) + 1)(head, body),
    "a header as long as the file": lambda head, body: _sized(len(head) + len(body))(head, body),
    "a header of no bytes": _sized(0),
    "a header of one byte": _sized(1),
    "only a length": lambda head, body: b"\x10" + bytes(7),
    "half a length": lambda head, body: b"\x10\x00\x00",
    "a header that is no text": lambda head, body: joined(b"\xff" + head[1:], body),
    "a header in UTF-16": lambda head, body: joined(head.decode().encode("utf-16"), body),
    "a header with a byte order mark": lambda head, body: joined(b"\xef\xbb\xbf" + head, body),
    "a header in nested lists": lambda head, body: joined(b'{"kdcli":' + b"[" * 100_000 + b"]" * 100_000 + b"}", body),
    "a header in nested objects": lambda head, body: joined(b'{"kdcli":' * 50_000 + b"1" + b"}" * 50_000, body),
    "a header of NaN": lambda head, body: joined(b'{"__metadata__":{"kdcli":NaN}}', body),
    "a header with a large number": lambda head, body: joined(
        b'{"__metadata__":{"kdcli":' + b"9" * 10_000 + b"}}", body
    ),
    "a header with 1e999": lambda head, body: joined(b'{"__metadata__":{"kdcli":1e999}}', body),
    "keys twice": lambda head, body: joined(head[:-1] + b"," + head.strip()[1:], body),
    "a header of 4 megabytes of lists": lambda head, body: joined(b'{"a":[' + b"[]," * 1_350_000 + b"1]}", body),
    "a header of 90 megabytes of lists": lambda head, body: joined(b'{"a":[' + b"[]," * 30_000_000 + b"1]}", body),
    "tensors cut": lambda head, body: joined(head, body[:-1]),
    "tensors doubled": lambda head, body: joined(head, body * 2),
    "no tensors' bytes": lambda head, body: joined(head, b""),
}
HARMLESS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "spaces after the header": lambda head, body: joined(head + b" " * 64, body),
    "spaces before the header": lambda head, body: joined(b" " * 64 + head, body),
}


def with_number(data: bytes, number: float) -> bytes:
    """The file with the first number of its largest tensor replaced."""
    header = json.loads(split(data)[0])
    header.pop("__metadata__", None)
    largest = max(header.values(), key=lambda tensor: tensor["data_offsets"][1] - tensor["data_offsets"][0])
    head, body = split(data)
    at, kind = largest["data_offsets"][0], {"F32": "<f", "F64": "<d"}[largest["dtype"]]
    new = struct.pack(kind, number)
    return joined(head, body[:at] + new + body[at + len(new) :])


def resealed(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """An agent file whose record is changed and sealed again, as anyone can."""
    from safetensors.numpy import load

    from kdcli import artifact

    header = json.loads(split(data)[0])
    record = json.loads(json.loads(header["__metadata__"]["kdcli"])["record"])
    changed = change(record)
    tensors, text = load(data), json.dumps(record if changed is None else changed)
    seal = json.dumps({"sha256": artifact._digest(text, tensors), "record": text})
    header["__metadata__"]["kdcli"] = seal
    return joined(json.dumps(header).encode(), split(data)[1])


def _at(*path: str | int, to: Any) -> Callable[[Any], None]:
    """One value of the record replaced."""

    def change(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = to

    return change


def _each(keys: list[str], values: dict[str, Any], *path: str) -> dict[str, Callable[[Any], None]]:
    place = "/".join(path)
    return {f"{place}/{key} is {title}": _at(*path, key, to=value) for key in keys for title, value in values.items()}


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES = {
    "nothing": None,
    "minus one": -1,
    "2 ** 40": 2**40,
    "10 ** 400": 10**400,
    "infinity": float("inf"),
    "NaN": float("nan"),
    "a text": "\x1b[31mhacked",
    "a list": [],
    "an object": {},
    "a list of 2 ** 40": [2**40, 2**40],
    "lists in lists": _deep(500),
    "true": True,
}
TOP = ["kind", "schema", "name", "observation", "action", "normalizer_clip", "network", "signal", "squash", "limit"]
MORE = ["quantiles", "spread", "value", "env", "facts", "image", "made"]
NETWORK = ["inputs", "hidden", "outputs", "activation", "bias", "kind", "name", "norm"]
SPACE = ["kind", "shape", "dtype", "low", "high", "n", "nvec", "start", "spaces"]
# An id may name a module, which would be imported; the folder of a case holds a `canary_module.py`.
ENV = {"id": "CartPole-v1", "kwargs": {}, "wrappers": [], "max_steps": None}

RECORDS: dict[str, Callable[[Any], Any]] = {
    "is a list": lambda record: [record],
    "is nothing": lambda record: {},
    **_each(TOP + MORE, VALUES),
    **_each(NETWORK, VALUES, "network"),
    **_each(SPACE, VALUES, "observation"),
    **_each(SPACE, VALUES, "action"),
    "observation is Discrete(2 ** 40)": _at(
        "observation", to={"kind": "discrete", "n": 2**40, "start": 0, "dtype": "int64"}
    ),
    "action is Discrete(2 ** 40)": _at("action", to={"kind": "discrete", "n": 2**40, "start": 0, "dtype": "int64"}),
    "observation is a Dict in a Dict": _at(
        "observation", to={"kind": "dict", "spaces": [["a", {"kind": "dict", "spaces": []}]]}
    ),
    "observation is an empty Dict": _at("observation", to={"kind": "dict", "spaces": []}),
    "observation is Box of terabytes": _at(
        "observation", to={"kind": "box", "shape": [2**21, 2**21], "dtype": "float32", "low": 0, "high": 1}
    ),
    "observation is of objects": _at(
        "observation", to={"kind": "box", "shape": [3], "dtype": "object", "low": 0, "high": 1}
    ),
    "observation is of records": _at(
        "observation", to={"kind": "box", "shape": [3], "dtype": "f4,O", "low": 0, "high": 1}
    ),
    "hidden is a million layers": _at("network", "hidden", to=[1] * 1_000_000),
    "hidden is wide": _at("network", "hidden", to=[2**20, 2**20]),
    "activation is a module": _at("network", "activation", to="os:system"),
    "kind is a module": _at("network", "kind", to="canary_module:X"),
    "env names a module": _at("env", to={**ENV, "id": "canary_module:X-v0"}),
    "env names a module of a package": _at("env", to={**ENV, "id": "canary_package.canary_module:X-v0"}),
    "env is an entry point": _at("env", to={**ENV, "id": "canary_module:make"}),
    "env has hostile arguments": _at("env", to={**ENV, "kwargs": {"entry_point": "canary_module:make"}}),
    "env has another hostile argument": _at("env", to={**ENV, "kwargs": {"render_mode": "human"}}),
    "env has hostile wrappers": _at("env", to={**ENV, "wrappers": ["canary_module:Wrapper"]}),
    "env has more hostile wrappers": _at(
        "env", to={**ENV, "wrappers": ["pad:1000000000000", "frame-stack:1000000000"]}
    ),
    "env has a name with escapes": _at("env", to={**ENV, "id": "\x1b[2J\x1b]0;hacked\x07-v0"}),
    "env has endless episodes": _at("env", to={**ENV, "max_steps": 10**30}),
    "facts with escapes": _at("facts", to={"algorithm": "\x1b[2J\x1b]0;hacked\x07", "sb3_version": "\x1b[31m"}),
    "facts of a list": _at("facts", to=["algorithm"]),
    "facts of large numbers": _at("facts", to={"total_params": 10**4000, "critic_params": -1}),
    "name with escapes": _at("name", to="\x1b[2J\x1b]0;hacked\x07"),
    "name that leads elsewhere": _at("name", to="../../x"),
}
