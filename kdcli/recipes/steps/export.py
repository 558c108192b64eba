"""`export`: an agent for another runtime."""

from __future__ import annotations

from typing import Any

from kdcli.api.export import check as check_options
from kdcli.api.export import export as run
from kdcli.exporters import SUFFIXES
from kdcli.exporters.config import ExportConfig
from kdcli.options import given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli export`."""
    [file] = job.inputs["agent"]
    said = run(file, job.output, progress=job.listener, **given(job.options)).summary()
    return {key: said[key] for key in ("n_params", "size_bytes", "parity")}


def check(options: ExportConfig, inputs: Inputs) -> None:
    """As `kdcli export`, before anything runs."""
    check_options(options)


def suffix(options: Any) -> str:
    """The format's, and ONNX's where none is named."""
    return next((end for end, name in SUFFIXES.items() if name == options.format), ".onnx")


KIND = Kind(
    gives="policy", takes={"agent": Take(("agent",))}, config=ExportConfig, suffix=suffix, check=check, make=make
)
