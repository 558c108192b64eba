"""A policy as a file for other runtimes, checked against the agent before it appears."""

from __future__ import annotations

from kdcli.registry import Registry

EXPORTERS = Registry(
    "export format",
    {
        "onnx": ("kdcli.exporters.onnx:FORMAT", "one .onnx file, raw observation in, action for env.step out"),
    },
)
