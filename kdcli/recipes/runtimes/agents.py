"""torch and onnxruntime: the two that every benchmark times."""

from __future__ import annotations

from kdcli.benchmarks.program import Program, program
from kdcli.errors import UsageError
from kdcli.recipes.runtimes.runtime import Entrant, Runtime


def _torch(entrant: Entrant) -> Program:
    return program(entrant.agent)


def _onnxruntime(entrant: Entrant) -> Program:
    file = entrant.contender.exported
    if file is None:
        raise UsageError(f"{entrant.contender.name} is not exported", "its ONNX file was refused", "see the note above")
    return program(file)


TORCH = Runtime(_torch)
ONNXRUNTIME = Runtime(_onnxruntime, form="onnx")
