"""`export`: an agent for another runtime."""

from __future__ import annotations

from typing import Any

from kdcli import artifact
from kdcli.checkpoints.read import read
from kdcli.exporters import EXPORTERS, SUFFIXES
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import gather
from kdcli.exporters.step import convert, resolved, stem_of
from kdcli.recipes.step_kind import Job, Kind, Take
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli export`."""
    [file] = job.inputs["agent"]
    agent, config = read(file), resolved(job.options, job.output)
    states = gather(agent, config.states, config.seed, job.listener)
    made = convert(agent, states, config, [artifact.parent(file)], stem_of(job.output))
    made.save(job.output)
    said = made.summary()
    return {key: said[key] for key in ("n_params", "size_bytes", "parity")}


def check(options: Any) -> None:
    """The format is one of those that are known."""
    if options.format != "auto":
        EXPORTERS.load(options.format)


def suffix(options: Any) -> str:
    """The format's, and ONNX's where none is named."""
    return next((end for end, name in SUFFIXES.items() if name == options.format), ".onnx")


KIND = Kind(
    gives="policy", takes={"agent": Take(("agent",))}, config=ExportConfig, suffix=suffix, check=check, make=make
)
