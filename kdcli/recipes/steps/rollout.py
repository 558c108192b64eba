"""`rollout`: a dataset of an agent's experience."""

from __future__ import annotations

from kdcli import artifact
from kdcli.checkpoints.read import read_any
from kdcli.errors import UsageError
from kdcli.recipes.step_kind import Job, Kind, Take
from kdcli.rollouts import record as step
from kdcli.rollouts.config import RolloutConfig
from kdcli.rollouts.recording import Cast
from kdcli.spec import Json


def make(job: Job) -> Json:
    """As `kdcli rollout`."""
    files = {"teacher": job.one("agent"), "student": job.one("student")}
    teacher, student = (read_any(file) if file else None for file in files.values())
    assert teacher is not None
    if teacher.env is None:
        raise UsageError("the env is not known", "the agent does not say it", 'begin with a step do = "load", env = ..')
    parents = {role: artifact.parent(file) for role, file in files.items() if file}
    done = step.rollout(Cast(teacher.env, teacher, student, parents), job.options, job.output, listen=job.listener)
    return {"steps": done.n_steps, "episodes": done.n_episodes, "mean_return": done.mean_return}


KIND = Kind(
    gives="dataset",
    takes={"agent": Take(("agent", "policy")), "student": Take(("agent",), required=False)},
    config=RolloutConfig,
    suffix=lambda _: "",
    check=lambda _: None,
    make=make,
)
