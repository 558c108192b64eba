"""A graph as a program of torch: TorchScript for libtorch, or an ExportedProgram (`.pt2`).

Both are zips. What torch writes into them about the machine that exported (source paths, stack traces) is left out, and
the record goes in as one member more, `extra/kdcli.json`, where torch keeps extra files.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.formats import Files, Format, Run
from kdcli.exporters.torch.module import GraphModule
from kdcli.graph.operations import Graph

SCRIPT, PROGRAM = ".pt", ".pt2"
_EXTRA, _RECORD = "archive/extra/", "kdcli.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Source paths, and a number of the saving process.
_DROPPED = (".debug_pkl", "serialization_id")
# What torch appends to the name of a class when it meets it again in a process.
_MANGLED, _MANGLED_IN = re.compile(r"[./]___torch_mangle_\d+"), re.compile(rb"\.___torch_mangle_\d+")
_TRACED = 2  # rows while tracing: torch takes 1 for a size that never changes


def _module(graph: Graph, config: ExportConfig) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """The graph as a module, and inputs to trace it with."""
    if config.precision != "fp32":
        raise UsageError(f"{config.format} files are not written in {config.precision}", "only onnx is", "choose fp32")
    kinds = [(port.shape, getattr(torch, port.dtype)) for port in graph.inputs]
    return GraphModule(graph).eval(), tuple(torch.zeros((_TRACED, *shape), dtype=kind) for shape, kind in kinds)


def write_script(graph: Graph, config: ExportConfig, *_: Any) -> Files:
    """The graph as TorchScript: tensors (B, *shape) in the order of its inputs; one output, or a tuple.

    Raises:
        UsageError: an option it cannot follow.
    """
    module, inputs = _module(graph, config)
    buffer = io.BytesIO()
    with _without_deprecations(), torch.no_grad():
        torch.jit.save(torch.jit.trace(module, inputs, check_trace=False), buffer)
    return {SCRIPT: _repacked(buffer.getvalue())}


def write_program(graph: Graph, config: ExportConfig, *_: Any) -> Files:
    """The graph as an ExportedProgram, its batch of any size.

    Raises:
        UsageError: an option it cannot follow.
    """
    module, inputs = _module(graph, config)
    batch = torch.export.Dim("batch", min=1)
    with _without_deprecations(), torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=(tuple({0: batch} for _ in inputs),))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return {PROGRAM: _repacked(buffer.getvalue())}


def _repacked(data: bytes, more: Mapping[str, bytes] | None = None) -> bytes:
    """The zip without what differs from process to process or tells of the machine, and with some `more` members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        members = {name: source.read(name) for name in source.namelist() if not name.endswith(_DROPPED)}
        for name, content in {**members, **(more or {})}.items():
            text = name.endswith((".py", ".pkl"))
            plain = _MANGLED_IN.sub(b"", content) if text else content
            target.writestr(zipfile.ZipInfo(_MANGLED.sub("", name), _EPOCH), plain)
    return out.getvalue()


def stamp(files: Files, record: Mapping[str, Any]) -> Files:
    """The file with the record inside."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    member = {_EXTRA + _RECORD: text.encode()}
    return {suffix: _repacked(data, member) for suffix, data in files.items()}


def _run(program: Callable[..., Any], graph: Graph) -> Run:
    inputs, outputs = ([port.name for port in ports] for ports in (graph.inputs, graph.outputs))

    @torch.no_grad()
    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = program(*(torch.from_numpy(np.ascontiguousarray(given[name])) for name in inputs))
        tensors = found if isinstance(found, tuple | list) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(outputs, tensors, strict=True)}

    return run


def run_script(files: Files, graph: Graph) -> Run:
    """The TorchScript file run by torch."""
    with _without_deprecations():
        return _run(torch.jit.load(io.BytesIO(files[SCRIPT])), graph)


def run_program(files: Files, graph: Graph) -> Run:
    """The ExportedProgram run by torch."""
    with _without_deprecations():
        return _run(torch.export.load(io.BytesIO(files[PROGRAM])).module(), graph)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """torch calls TorchScript deprecated; who asks for it has a libtorch to feed."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, TracerWarning):
            warnings.simplefilter("ignore", category)
        yield


TORCHSCRIPT = Format(write_script, stamp, run_script)
EXPORTED = Format(write_program, stamp, run_program)
