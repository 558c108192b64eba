"""A policy as a file for other runtimes, checked against the agent before it appears."""

from __future__ import annotations

from kdcli.registry import Registry

# Suffix of an output -> the format it asks for.
SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "exported"}
EXPORTERS = Registry(
    "export format",
    {
        "onnx": ("kdcli.exporters.onnx:FORMAT", "one .onnx file, raw observation in, action for env.step out"),
        "torchscript": ("kdcli.exporters.torch_programs:TORCHSCRIPT", "one .pt file for libtorch, from C++ too"),
        "exported": ("kdcli.exporters.torch_programs:EXPORTED", "one .pt2 file, torch.export's ExportedProgram"),
    },
)
