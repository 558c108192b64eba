"""`improve`: an agent with better weights, found by its return."""

from __future__ import annotations

from kdcli.api.agents import find_whole
from kdcli.api.improve import check as check_options
from kdcli.api.improve import improve as run
from kdcli.improvement.config import ImproveConfig
from kdcli.options import given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, files_of
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli improve`."""
    [file] = job.inputs["agent"]
    done = run(file, job.output, progress=job.listener, **given(job.options))
    return {"params": done.agent.n_params, "before": done.before, "after": done.after, "gain": list(done.gain)}


def check(options: ImproveConfig, inputs: Inputs) -> None:
    """As `kdcli improve`, before anything runs; an agent that is there already is read."""
    check_options(options)
    for file in files_of(inputs["agent"]):
        check_options(options, agent=find_whole(file).agent)


KIND = Kind(
    gives="agent",
    takes={"agent": Take(("agent",))},
    config=ImproveConfig,
    suffix=lambda _: ".safetensors",
    check=check,
    make=make,
)
