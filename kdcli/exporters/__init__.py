"""A policy as a file for other runtimes, checked against the agent before it appears."""

from __future__ import annotations

from kdcli.registry import Registry

# Suffix of an output -> the format it asks for.
SUFFIXES = {".onnx": "onnx", ".c": "c", ".npz": "numpy", ".pt": "torchscript", ".pt2": "exported"}
EXPORTERS = Registry(
    "export format",
    {
        "onnx": ("kdcli.exporters.onnx.writer:FORMAT", "one .onnx file, raw observation in, action for env.step out"),
        "c": ("kdcli.exporters.c:FORMAT", "C99, also C++11: .c, .h and a test program; no allocation, no library"),
        "numpy": ("kdcli.exporters.numpy.writer:FORMAT", "a .npz, and a page of code that runs it with NumPy alone"),
        "torchscript": ("kdcli.exporters.torch.programs:TORCHSCRIPT", "one .pt file for libtorch, from C++ too"),
        "exported": ("kdcli.exporters.torch.programs:EXPORTED", "one .pt2 file, torch.export's ExportedProgram"),
    },
    group="kdcli.exporters",
)
