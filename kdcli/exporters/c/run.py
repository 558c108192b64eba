"""A policy's C files as a function: compiled here and called on each observation of a batch."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.errors import UsageError
from kdcli.exporters.c.files import HEADER, SOURCE
from kdcli.exporters.c.stamp import contract
from kdcli.exporters.formats import Files, Run
from kdcli.graph.operations import Graph

FLAGS = ("-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-pedantic")


def runner(files: Files, _: Graph | None = None) -> Run:
    """Inputs by name, (B, *shape) -> outputs by name, (B, *shape).

    Raises:
        UsageError: there is no C compiler, or it does not take the files.
    """
    return bind(compiled(files), files)


def bind(library: ctypes.CDLL, files: Files) -> Run:
    """The policy of these files in a library they are compiled into, perhaps with others."""
    terms = contract(files)
    function = getattr(library, f"{terms['symbol']}_run")
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * (len(terms["inputs"]) + len(terms["outputs"]) + 1)
    return _Batches(function, terms)


class _Batches:
    """Calls of the compiled function, one an observation."""

    def __init__(self, function: Any, terms: Mapping[str, Any]) -> None:
        self._function, self._inputs, self._outputs = function, terms["inputs"], terms["outputs"]
        self._work = np.zeros(terms["work_bytes"] // 8 + 1, np.float64)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = [np.ascontiguousarray(inputs[port["name"]], port["dtype"]) for port in self._inputs]
        n = len(given[0])
        found = [np.empty((n, *port["shape"]), port["dtype"]) for port in self._outputs]
        for array, port in zip(given, self._inputs, strict=True):
            if array.shape != (n, *port["shape"]):
                raise UsageError(f"{port['name']} has the shape {array.shape}", f"it is (batch, *{port['shape']})", "")
        arrays, work = [*given, *found], self._work.ctypes.data
        starts, strides = [array.ctypes.data for array in arrays], [array[:1].nbytes for array in arrays]
        for row in range(n):
            self._function(*(start + row * size for start, size in zip(starts, strides, strict=True)), work)
        return {port["name"]: array for port, array in zip(self._outputs, found, strict=True)}


def compiled(files: Files, flags: Sequence[str] = FLAGS, more: Mapping[str, str] | None = None) -> ctypes.CDLL:
    """The source, and `more` C files by name, as a library.

    Raises:
        UsageError: there is no C compiler, or it does not take the files.
    """
    compiler = find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, contract(files)["header"]).write_bytes(files[HEADER])
        sources, library = {"policy.c": files[SOURCE].decode(), **(more or {})}, Path(folder, "policy.so")
        for name, text in sources.items():
            Path(folder, name).write_text(text)
        paths = [str(Path(folder, name)) for name in sources]
        command = [*compiler, *flags, "-shared", "-fPIC", *paths, "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise UsageError(
                f"{compiler[0]} does not compile the policy", why, "name another compiler in CC; report it"
            )
        return ctypes.CDLL(str(library))


def find_compiler() -> list[str]:
    """The words that call the C compiler.

    Raises:
        UsageError: there is none.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        why = f"C files are compared with the agent before they appear, and there is no compiler called {compiler[0]!r}"
        raise UsageError("C cannot be exported here", why, "apt install gcc, or name one in the variable CC")
    return compiler
