"""`load`: a checkpoint as an agent file."""

from __future__ import annotations

from typing import Any

from kdcli.api.load import load as run
from kdcli.checkpoints.config import LoadConfig
from kdcli.options import given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli load`."""
    [path] = job.inputs["path"]
    run(path, job.output, progress=job.listener, **given(job.options))
    return {}


def check(options: Any, inputs: Inputs) -> None:
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
