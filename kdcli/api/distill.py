"""`kdcli.distill`: a smaller student of one teacher, of several seen as one, or along a chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.applies import given_fields
from kdcli.distillation.config import ChainConfig, DistillConfig
from kdcli.options import build
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.actor import Actor
    from kdcli.agents.agent import Agent
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.distillation.loop import Round


def check(
    config: DistillConfig,
    chain: ChainConfig,
    *,
    n_teachers: int = 1,
    dataset: bool = False,
    teachers: Sequence[Actor] = (),
) -> None:
    """Say all that can be said before work begins; more, once the teachers are there.

    Args:
        config: How a student learns.
        chain: From whom in which order.
        n_teachers: How many teachers there will be.
        dataset: Whether recorded states are given.
        teachers: Those that teach, several seen as one as the one that they are; empty while they are not there.

    Raises:
        UsageError: a text cannot be read, options exclude each other, one would change nothing, or teacher, student and
            losses do not go together.
    """
    from kdcli.agents.actor import env_of
    from kdcli.distillation.checks import check_distillation, rehearse

    first = teachers[0] if teachers else None
    check_distillation(config, chain, n_teachers=n_teachers, dataset=dataset, teacher=first)
    for teacher in teachers:
        env_of(teacher)
        taught: Actor = teacher
        for student in (*chain.via, config.student):
            taught = rehearse(taught, config.model_copy(update={"student": student}))


def distill(
    teacher: Any,
    output: Path | str | None = None,
    *,
    dataset: Any = None,
    force: bool = False,
    progress: Listener = silent,
    **options: Any,
) -> DistillResult:
    """Distill a teacher into a smaller student; the best by its return in the env is kept.

    Args:
        teacher: A path, a kdcli agent, a Stable-Baselines3 model, or a list of them.
        output: Where to write the student as safetensors; a distillation that was interrupted is continued. None: it
            is in the result alone.
        dataset: Recorded states to begin with: the folder of a rollout, or a `Dataset`.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.distillation.config.DistillConfig` and `ChainConfig`, and of
            `kdcli.checkpoints.config.LoadConfig`, which says how the teachers' files are read.

    Raises:
        UsageError: an option that cannot be read or would change nothing, no env, or an output that cannot be written.
        RefusedError: a file is damaged, unsafe or unsupported; the training diverged.
    """
    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.api.agents import as_list
    from kdcli.api.datasets import find_dataset
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.distillation.online import distill_to, record_of
    from kdcli.distillation.student import resolve
    from kdcli.distillation.teacher_chains import distill_chain

    source, config, chain = build(with_env_id(options), LoadConfig, DistillConfig, ChainConfig)
    given, output = as_list(teacher), None if output is None else Path(output)
    check(config, chain, n_teachers=len(given), dataset=dataset is not None)
    if output is not None:
        artifact.refuse_existing(output, force)
    # Teachers and recorded states, and what the student's file will say that it was made from.
    teachers, parents = find_teachers(given, config, chain, source, progress)
    data = None
    if dataset is not None:
        recorded, parent = find_dataset(dataset)
        alone = config.data == "offline" or config.rounds == 1  # nobody plays for other states
        most = min(config.labels, config.capacity) if alone and "labels" in given_fields(config) else config.capacity
        data, parents = recorded.labelled(most), [*parents, parent]
    check(config, chain, n_teachers=len(given), dataset=dataset is not None, teachers=teachers)
    resolved = resolve(config, teachers[0])
    with one_thread():
        if chain.plain:
            done = distill_to(output, teachers[0], parents, resolved, data, force, progress)
            return DistillResult(done.student, done.rounds, done.losses, record_of(resolved, done, parents), output)
        done, links = distill_chain(teachers, resolved, chain, progress)
    record = {**made_of("distill", parents, resolved, chain), "losses": list(done.losses), "chain": links}
    result = DistillResult(done.student, done.rounds, done.losses, record, output)
    if output is not None:
        result.save(output, force)
    return result


def find_teachers(
    given: Sequence[Any],
    config: DistillConfig,
    chain: ChainConfig,
    source: LoadConfig | None = None,
    progress: Listener = silent,
) -> tuple[list[Actor], list[Mapping[str, str]]]:
    """The agents that teach, one after the other or several seen as one, and what names each that was given.

    Raises:
        UsageError: what was given is no agent, or several do not play one env.
        RefusedError: a file is damaged, unsafe or unsupported; or one of several is an exported file.
    """
    from kdcli.agents.ensemble import Ensemble
    from kdcli.api.agents import find, find_whole

    if len(given) == 1:
        found = find(given[0], source, progress)
        return [found.agent], [found.parent]
    apart = [find_whole(agent, source, progress) for agent in given]  # only what can be taken apart combines
    agents, parents = [one.agent for one in apart], [one.parent for one in apart]
    return [*agents] if chain.teachers != "combined" else [Ensemble(agents, config.combine)], parents


def made_of(command: str, parents: Sequence[Mapping[str, str]], *configs: Any) -> dict[str, Any]:
    """How a file was made: by which command, with which options, from what."""
    from kdcli import artifact

    return {
        "command": command,
        "config": {key: value for config in configs for key, value in config.model_dump(mode="json").items()},
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
        "parents": [dict(parent) for parent in parents],
    }


@dataclass(frozen=True, eq=False, repr=False)
class DistillResult(Result):
    """A student and how it learned.

    Attributes:
        student: The agent of the best round by return.
        rounds: What each round came to: labels, updates, loss, agreement, mean return.
        losses: The loss terms that taught it.
        record: How it was made, as its file says it.
        path: Where it was written, if it was.
    """

    student: Agent
    rounds: tuple[Round, ...]
    losses: tuple[str, ...]
    record: Mapping[str, Any]
    path: Path | None = None

    @property
    def mean_return(self) -> float:
        """Of the best round, by which the student was chosen."""
        return max(each.mean_return for each in self.rounds)

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write the student as safetensors, with the record of how it was made.

        Raises:
            UsageError: the file exists (without `force`) or cannot be written.
        """
        from kdcli.agents import store

        return store.save(Path(path), self.student, self.record, force)

    def summary(self) -> dict[str, Any]:
        """Parameters, losses, return and rounds, as JSON values."""
        rounds = [asdict(each) for each in self.rounds]
        facts = {"params": self.student.n_params, "losses": list(self.losses), "return": self.mean_return}
        return {**facts, "rounds": rounds}

    def facts(self) -> Mapping[str, Any]:
        """The student, its size and its return."""
        facts = {"student": self.student.name, "params": self.student.n_params, "return": self.mean_return}
        agreement = max(self.rounds, key=lambda each: each.mean_return).agreement
        facts |= {"agreement": agreement, "losses": ", ".join(self.losses), "rounds": len(self.rounds)}
        return facts if self.path is None else {**facts, "path": self.path}
