"""Quantization: an agent in, the same agent on fewer bits out."""

from __future__ import annotations

from kdcli.registry import Registry

SCHEMES = Registry(
    "scheme",
    {
        "int8": (
            "kdcli.quantization.schemes:linear",
            "whole numbers times a scale; int8:rows=no,zero=yes,fit=max",
        ),
        "int4": ("kdcli.quantization.schemes:linear", "4-bit whole numbers times a scale for each row"),
        "int3": ("kdcli.quantization.schemes:linear", "3-bit whole numbers times a scale for each row"),
        "int2": ("kdcli.quantization.schemes:linear", "2-bit whole numbers times a scale for each row"),
        "int16": ("kdcli.quantization.schemes:linear", "16-bit whole numbers times a scale for each row"),
        "kmeans": ("kdcli.quantization.schemes:codebook", "a table of the best levels for each matrix: kmeans:16"),
        "log": ("kdcli.quantization.schemes:logarithmic", "powers of two and 0, by bits: log:4"),
        "fp16": ("kdcli.quantization.schemes:half", "half-precision floats"),
        "bf16": ("kdcli.quantization.schemes:half", "bfloat16: the range of float32, 8 bits of precision"),
    },
)

CALIBRATIONS = Registry(
    "calibration",
    {
        "minmax": ("kdcli.quantization.calibration:minmax", "from the least to the greatest number seen"),
        "percentile": ("kdcli.quantization.calibration:percentile", "all but the outermost: percentile:99.9"),
        "entropy": ("kdcli.quantization.calibration:entropy", "the range that keeps the distribution (least KL)"),
        "dynamic": (
            "kdcli.quantization.calibration:dynamic",
            "none: each observation's own range, at every call; for linear layers",
        ),
    },
)
