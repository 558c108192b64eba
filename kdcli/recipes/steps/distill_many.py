"""`distill-many`: the teachers of several tasks to students that share weights."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from kdcli import artifact
from kdcli.checkpoints.read import read_any
from kdcli.distillation.checks import check_distillation
from kdcli.distillation.config import DistillConfig, TasksConfig
from kdcli.distillation.penalties import parse_penalty
from kdcli.distillation.teacher_chains import distill_tasks_to
from kdcli.recipes.step_kind import Job, Kind, Take, part
from kdcli.spec import Json


class TasksStep(DistillConfig, TasksConfig):
    """How students of several tasks learn, and in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make(job: Job) -> Json:
    """As `kdcli distill-many`."""
    files, options = job.inputs["teachers"], job.options
    agents, parents = [read_any(file) for file in files], [artifact.parent(file) for file in files]
    config, tasks = part(options, DistillConfig), part(options, TasksConfig)
    record = distill_tasks_to(job.output, agents, parents, config, tasks, listener=job.listener)
    scores = [task["score"] for task in record["tasks"]]
    return {"params": record["params"], "scores": scores, "forgetting": record.get("forgetting")}


def check(options: Any) -> None:
    """The options of a distillation, and what is kept."""
    check_distillation(options)
    for text in options.keep:
        parse_penalty(text)


KIND = Kind(
    gives="students",
    takes={"teachers": Take(("agent", "policy"), many=True)},
    config=TasksStep,
    suffix=lambda _: "",
    check=check,
    make=make,
)
