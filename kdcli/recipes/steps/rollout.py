"""`rollout`: a dataset of an agent's experience."""

from __future__ import annotations

from kdcli.api.agents import find
from kdcli.api.rollout import check as check_options
from kdcli.api.rollout import rollout as run
from kdcli.options import given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, files_of
from kdcli.rollouts.config import RolloutConfig
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli rollout`."""
    [file] = job.inputs["agent"]
    return run(file, job.output, student=job.one("student"), progress=job.listener, **given(job.options)).summary()


def check(options: RolloutConfig, inputs: Inputs) -> None:
    """As `kdcli rollout`, before anything runs; an agent that is there already is read."""
    student = bool(inputs.get("student"))
    check_options(options, student=student)
    for file in files_of(inputs["agent"]):
        check_options(options, student=student, agent=find(file).agent)


KIND = Kind(
    gives="dataset",
    takes={"agent": Take(("agent", "policy")), "student": Take(("agent",), required=False)},
    config=RolloutConfig,
    suffix=lambda _: "",
    check=check,
    make=make,
)
