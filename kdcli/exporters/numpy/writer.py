"""A policy for machines with NumPy alone: a .npz of its numbers and operations, and a page of code that runs it."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kdcli.exporters.config import ExportConfig
from kdcli.exporters.formats import Files, Format, Run
from kdcli.exporters.numpy import template as numpy_page
from kdcli.graph.count import LEARNED
from kdcli.graph.operations import Graph, Op, Port

SUFFIX, PAGE = ".npz", ".py"
RECORD = "record"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def write(graph: Graph, config: ExportConfig, *_: Any) -> Files:
    """The .npz and the page, which is the same for every policy; equal graphs give equal bytes."""
    numbers: dict[str, np.ndarray] = {}
    operations = [_operation(op, numbers, config.precision == "fp16" and op.kind in LEARNED) for op in graph.ops]
    ends = {"inputs": [_port(port) for port in graph.inputs], "outputs": [_port(port) for port in graph.outputs]}
    text = json.dumps({**ends, "operations": operations}, separators=(",", ":"), allow_nan=False)
    page = Path(numpy_page.__file__).read_text(encoding="utf-8")
    return {SUFFIX: _pack({"graph": _text(text), **numbers}), PAGE: page.encode()}


def stamp(files: Files, record: Mapping[str, Any]) -> Files:
    """The files with the record as one more entry, JSON in `record`."""
    with np.load(io.BytesIO(files[SUFFIX]), allow_pickle=False) as content:
        entries = {name: content[name] for name in content.files}
    text = json.dumps(dict(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**files, SUFFIX: _pack({**entries, RECORD: _text(text)})}


def runner(files: Files, _: Graph | None = None) -> Run:
    """The files run by NumPy, from the very page that is shipped."""
    page = ModuleType("policy")
    exec(compile(files[PAGE], "policy.py", "exec"), page.__dict__)
    return page.Policy(io.BytesIO(files[SUFFIX])).run


def _operation(op: Op, numbers: dict[str, np.ndarray], half: bool) -> dict[str, Any]:
    """The operation as JSON values; its arrays go to `numbers`, named after its first output."""
    named = {}
    for key, array in sorted(op.weights.items()):
        name = f"{op.outputs[0].name}.{key}"
        numbers[name] = array.astype(np.float16) if half else array
        named[key] = [name, array.dtype.name]
    settings = {key: value for key, value in sorted(op.attrs.items()) if value != math.inf}
    gives = {"shape": list(op.outputs[0].shape), "dtype": op.outputs[0].dtype}
    return {
        "kind": op.kind,
        "inputs": [port.name for port in op.inputs],
        "outputs": [port.name for port in op.outputs],
        "settings": {**settings, **gives},
        "numbers": named,
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}


def _text(text: str) -> np.ndarray:
    """ASCII text as an array of one, which needs no pickle."""
    return np.array(text.encode("ascii"))


def _pack(entries: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file that is the same whenever it is made."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for name, array in entries.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _LONG_AGO), entry.getvalue())
    return found.getvalue()


FORMAT = Format(write, stamp, runner)
