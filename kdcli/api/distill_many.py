"""`kdcli.distill_many`: the teachers of several tasks to students that share weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.distillation.config import DistillConfig, TasksConfig
from kdcli.options import build
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.actor import Actor
    from kdcli.agents.agent import Agent
    from kdcli.distillation.continual import InTurn
    from kdcli.distillation.multi_task import Together

SCHEMA = "kdcli.distill-many/1"
OWN = ("tasks.json", "*.safetensors")  # all that its folder holds


def check(config: DistillConfig, tasks: TasksConfig, *, n_teachers: int, teachers: Sequence[Actor] = ()) -> None:
    """Say all that can be said before work begins; more, once the teachers are there.

    Raises:
        UsageError: a text cannot be read, options exclude each other, one would change nothing, or a teacher, its
            student and the losses do not go together.
    """
    from kdcli.agents.actor import env_of
    from kdcli.distillation.checks import check_tasks, rehearse

    check_tasks(config, tasks, n_teachers=n_teachers, teachers=teachers)
    for teacher in teachers:
        env_of(teacher)
        rehearse(teacher, config)


def distill_many(
    teachers: Sequence[Any],
    output: Path | str | None = None,
    *,
    force: bool = False,
    progress: Listener = silent,
    **options: Any,
) -> DistillManyResult:
    """Distill the teachers of several tasks into students that share what is between input layer and head.

    Labels are counted for each task.

    Args:
        teachers: One for each task, each with its own env: paths, kdcli agents or Stable-Baselines3 models.
        output: The folder to write: a student for each task, which acts alone, and tasks.json: parameters, scores, what
            was forgotten. None: they are in the result alone.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.distillation.config.DistillConfig` and `TasksConfig`, and of
            `kdcli.checkpoints.config.LoadConfig`, which says how the teachers' files are read.

    Raises:
        UsageError: no env, a teacher no better than random play, an option that cannot be read or would change nothing,
            or an output that cannot be written.
        RefusedError: a file is damaged, unsafe or unsupported; the training diverged.
    """
    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.api.agents import as_list, find
    from kdcli.api.distill import made_of
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.distillation.teacher_chains import distill_all

    source, config, tasks = build(with_env_id(options), LoadConfig, DistillConfig, TasksConfig)
    given, output = as_list(teachers), None if output is None else Path(output)
    check(config, tasks, n_teachers=len(given))
    if output is not None:
        artifact.refuse_folder(output, force, OWN)
    found = [find(teacher, source, progress) for teacher in given]
    agents = [one.agent for one in found]
    check(config, tasks, n_teachers=len(given), teachers=agents)
    with one_thread():
        done = distill_all(agents, config, tasks, progress)
    made = made_of("distill-many", [one.parent for one in found], config, tasks)
    students = dict(zip(_names(agents), done.students, strict=True))
    result = DistillManyResult(students, _described(done, list(students)), made, output)
    if output is not None:
        result.save(output, force)
    return result


def _names(teachers: Sequence[Actor]) -> list[str]:
    """The id of each env, without what a file name cannot hold, numbered where it comes again."""
    from kdcli.agents.actor import env_of

    found: list[str] = []
    for teacher in teachers:
        name = env_of(teacher).id.replace("/", "-").replace(":", "-")
        again = sum(other == name or other.startswith(f"{name}-task") for other in found)
        found.append(f"{name}-task{again + 1}" if again else name)
    return found


def _described(done: Together | InTurn, names: Sequence[str]) -> dict[str, Any]:
    """Parameters, scores, and what was forgotten."""
    from kdcli.distillation.multi_task import Together

    last = [each.mean_return for each in done.best] if isinstance(done, Together) else list(done.scores[-1])
    tasks = [
        {"file": f"{name}.safetensors", "params": student.n_params, "score": score}
        for name, student, score in zip(names, done.students, last, strict=True)
    ]
    found: dict[str, Any] = {"schema": SCHEMA, "params": done.n_params, "tasks": tasks}
    if not isinstance(done, Together):
        found |= {"scores": [list(row) for row in done.scores], "forgetting": list(done.forgetting)}
    return {**found, "rounds": [[asdict(each) for each in rounds] for rounds in done.rounds]}


@dataclass(frozen=True, eq=False, repr=False)
class DistillManyResult(Result):
    """Students that share weights, one for each task.

    Attributes:
        students: Name of the task, its env's id, -> its student, which acts alone.
        details: What tasks.json holds beside how it was made: `params`, shared ones once, `tasks` with their scores
            (0 random play, 1 the teacher), `rounds`; of tasks in turn `scores` after each, and `forgetting`.
        record: How they were made.
        path: The folder that was written, if one was.
    """

    students: Mapping[str, Agent]
    details: Mapping[str, Any]
    record: Mapping[str, Any]
    path: Path | None = None

    @property
    def scores(self) -> list[float]:
        """Of each task's student: 0 is random play, 1 the teacher."""
        return [task["score"] for task in self.details["tasks"]]

    def save(self, folder: Path | str, force: bool = False) -> Path:
        """Write a folder: an agent for each task, and tasks.json.

        Raises:
            UsageError: it exists (without `force`) or cannot be written.
        """
        from kdcli import artifact
        from kdcli.agents import store

        with artifact.atomic_folder(Path(folder), force, OWN) as inside:
            for name, student in self.students.items():
                store.save(inside / f"{name}.safetensors", student, self.record)
            artifact.write_json(inside / "tasks.json", self.summary())
        return Path(folder)

    def summary(self) -> dict[str, Any]:
        """What tasks.json holds, as JSON values."""
        return {**self.details, **self.record}

    def facts(self) -> Mapping[str, Any]:
        """The tasks with their scores, and how large the students are together."""
        facts = {"params": self.details["params"], **dict(zip(self.students, self.scores, strict=True))}
        return facts if self.path is None else {**facts, "path": self.path}
