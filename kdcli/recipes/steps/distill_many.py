"""`distill-many`: the teachers of several tasks to students that share weights."""

from __future__ import annotations

from pydantic import ConfigDict

from kdcli.api.agents import find
from kdcli.api.distill_many import check as check_options
from kdcli.api.distill_many import distill_many as run
from kdcli.distillation.config import DistillConfig, TasksConfig
from kdcli.options import build, given
from kdcli.recipes.step_kind import Inputs, Job, Kind, Take, files_of
from kdcli.spec import Json


class TasksStep(DistillConfig, TasksConfig):
    """How students of several tasks learn, and in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli distill-many`."""
    done = run(list(job.inputs["teachers"]), job.output, progress=job.listener, **given(job.options))
    return {"params": done.details["params"], "scores": done.scores, "forgetting": done.details.get("forgetting")}


def check(options: TasksStep, inputs: Inputs) -> None:
    """As `kdcli distill-many`, before anything runs; teachers that are there already are read."""
    config, tasks = build(given(options), DistillConfig, TasksConfig)
    teachers = [find(file).agent for file in files_of(inputs["teachers"])]
    check_options(config, tasks, n_teachers=len(inputs["teachers"]), teachers=teachers)


KIND = Kind(
    gives="students",
    takes={"teachers": Take(("agent", "policy"), many=True)},
    config=TasksStep,
    suffix=lambda _: "",
    check=check,
    make=make,
)
