"""torch and onnxruntime: the two that every benchmark times."""

from __future__ import annotations

from kdcli.benchmarks.program import Program, program
from kdcli.errors import UsageError
from kdcli.runtimes.runtime import Runtime, RuntimeEntry


def _torch(entrant: RuntimeEntry) -> Program:
    return program(entrant.agent)


def _onnxruntime(entrant: RuntimeEntry) -> Program:
    file = entrant.entry.exported
    if file is None:
        raise UsageError(f"{entrant.entry.name} is not exported", "its ONNX file was refused", "see the note above")
    return program(file)


TORCH = Runtime(_torch)
ONNXRUNTIME = Runtime(_onnxruntime, form="onnx")
