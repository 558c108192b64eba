"""`prune`: an agent with fewer numbers."""

from __future__ import annotations

from typing import Any

from kdcli import artifact
from kdcli.checkpoints.read import read
from kdcli.errors import UsageError
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.step import lossless_to
from kdcli.recipes.chain.kind import Job, Kind, Take
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli prune`."""
    [file] = job.inputs["agent"]
    done = lossless_to(job.output, read(file), [artifact.parent(file)], job.options)
    return {"params": done.agent.n_params, "n_states": done.alike.n_states, "ties": done.alike.ties}


def check(options: Any) -> None:
    """Something is asked for."""
    if not options.lossless:
        raise UsageError("nothing is asked for", "prune needs to know what may go", "add lossless = true")


KIND = Kind(
    gives="agent",
    takes={"agent": Take(("agent",))},
    config=PruneConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
