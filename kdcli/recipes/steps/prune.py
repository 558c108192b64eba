"""`prune`: an agent with fewer numbers."""

from __future__ import annotations

from kdcli.api.agents import find_whole
from kdcli.api.prune import check as check_options
from kdcli.api.prune import prune as run
from kdcli.options import given
from kdcli.pruning.config import PruneConfig
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, files_of
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli prune`."""
    [file] = job.inputs["agent"]
    done = run(file, job.output, progress=job.listener, **given(job.options))
    if job.options.lossless:
        return {"params": done.agent.n_params, "n_states": done.proved.alike.n_states, "ties": done.proved.alike.ties}
    verdict = "passed" if done.reached else "failed"
    return {"params": done.agent.n_params, "reached": done.reached, "verdicts": [verdict]}


def check(options: PruneConfig, inputs: Inputs) -> None:
    """As `kdcli prune`, before anything runs; an agent that is there already is read."""
    check_options(options)
    for file in files_of(inputs["agent"]):
        check_options(options, agent=find_whole(file).agent)


KIND = Kind(
    gives="agent",
    takes={"agent": Take(("agent",))},
    config=PruneConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
