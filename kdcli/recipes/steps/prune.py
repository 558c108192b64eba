"""`prune`: an agent with fewer numbers."""

from __future__ import annotations

from typing import Any

from kdcli import artifact
from kdcli.checkpoints.read import read
from kdcli.compression.pruning import prune_to
from kdcli.errors import UsageError
from kdcli.pruning import IMPORTANCE, PACES
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.lossless_file import lossless_to
from kdcli.pruning.size_targets import Budget
from kdcli.recipes.step_kind import Job, Kind, Take
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli prune`."""
    [file] = job.inputs["agent"]
    agent, parents = read(file), [artifact.parent(file)]
    if job.options.lossless:
        proved = lossless_to(job.output, agent, parents, job.options)
        return {"params": proved.agent.n_params, "n_states": proved.alike.n_states, "ties": proved.alike.ties}
    done = prune_to(job.output, agent, parents, job.options, listener=job.listener).pruned
    verdict = "passed" if done.reached else "failed"
    return {"params": done.agent.n_params, "reached": done.reached, "verdicts": [verdict]}


def check(options: Any) -> None:
    """Something is asked for, by names that are known."""
    IMPORTANCE.load(options.importance)
    PACES.load(options.pace)
    if options.to is not None:
        Budget.parse(options.to, {"latency_us": lambda _: 0.0})
    elif not options.lossless and options.pattern == "units":
        raise UsageError(
            "nothing is asked for", "prune needs to know what may go", 'add lossless = true, or to = "..."'
        )


KIND = Kind(
    gives="agent",
    takes={"agent": Take(("agent",))},
    config=PruneConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
