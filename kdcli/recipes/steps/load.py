"""`load`: a checkpoint as an agent file."""

from __future__ import annotations

from typing import Any

from kdcli.checkpoints import files as step
from kdcli.checkpoints.config import LoadConfig
from kdcli.recipes.step_kind import Job, Kind, Take
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli load`."""
    [path] = job.inputs["path"]
    step.load(path, job.output, job.options, listen=job.listener)
    return {}


def check(options: Any) -> None:
    """Read the env's arguments."""
    options.kwargs()


KIND = Kind(
    gives="agent",
    takes={"path": Take(("checkpoint", "agent"))},
    config=LoadConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
