"""`kdcli.rollout`: an agent's experience as a dataset."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.options import build
from kdcli.progress import Listener, silent
from kdcli.rollouts.config import RolloutConfig

if TYPE_CHECKING:
    from kdcli.agents.actor import Actor
    from kdcli.datasets import Dataset


def check(config: RolloutConfig, *, student: bool | None = None, agent: Actor | None = None) -> None:
    """Say all that can be said before work begins; more, once the agent is there.

    Raises:
        UsageError: an option would change nothing, a student has no part or a part no student, or no env is known.
    """
    from kdcli.agents.actor import env_of
    from kdcli.rollouts.checks import check_rollout

    check_rollout(config, student)
    if agent is not None:
        env_of(agent)


def rollout(
    agent: Any,
    output: Path | str | None = None,
    *,
    student: Any = None,
    force: bool = False,
    progress: Listener = silent,
    **options: Any,
) -> RolloutResult:
    """Record an agent's experience, its outputs beside every step.

    Args:
        agent: Who labels every step, and plays unless `policy` says otherwise: a path, a kdcli agent, or a
            Stable-Baselines3 model.
        output: The folder to write; a rollout that was interrupted is continued. None: a temporary folder, which goes
            with the result.
        student: Who plays beside the agent (`policy="mixed"`) or in its place (`"student"`).
        force: Replace what is in `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.rollouts.config.RolloutConfig`, and of `kdcli.checkpoints.config.LoadConfig`, which
            says how the agent's file is read.

    Raises:
        UsageError: no env, an agent that does not fit it, an option that would change nothing, or a folder that holds
            something else or cannot be written.
        RefusedError: a file is damaged, unsafe or unsupported.
    """
    from kdcli.agents.actor import env_of
    from kdcli.api.agents import find
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.rollouts import record
    from kdcli.rollouts.recording import Cast

    source, config = build(with_env_id(options), LoadConfig, RolloutConfig)
    check(config, student=student is not None)
    teacher = find(agent, source, progress)
    check(config, student=student is not None, agent=teacher.agent)
    env = env_of(teacher.agent)
    other = None if student is None else find(student, LoadConfig(env=env.id), progress)
    parents = {"teacher": teacher.parent, **({} if other is None else {"student": other.parent})}
    cast = Cast(env, teacher.agent, None if other is None else other.agent, parents)
    if output is not None:
        record.rollout(cast, config, Path(output), force, progress)
        return RolloutResult(Path(output))
    temporary = tempfile.mkdtemp(prefix="kdcli-rollout-")
    result = RolloutResult(Path(temporary) / "dataset")
    weakref.finalize(result, shutil.rmtree, temporary, ignore_errors=True)
    record.rollout(cast, config, result.path, force, progress)
    return result


@dataclass(frozen=True, eq=False, repr=False)
class RolloutResult(Result):
    """A dataset that was recorded.

    Attributes:
        path: Its folder.
    """

    path: Path

    @property
    def dataset(self) -> Dataset:
        """The dataset, open: rows by index, chunk or episode; also what `kdcli.distill(dataset=...)` takes."""
        from kdcli.datasets import Dataset

        found = Dataset.open(self.path)
        found.owner = self  # a temporary folder goes when neither is used any more
        return found

    def save(self, folder: Path | str, force: bool = False) -> Path:
        """Copy the dataset to a folder.

        Raises:
            UsageError: it exists (without `force`) or cannot be written.
        """
        from kdcli import artifact

        with artifact.atomic_folder(Path(folder), force, ("manifest.json", "shard-*.safetensors")) as inside:
            shutil.copytree(self.path, inside, dirs_exist_ok=True)
        return Path(folder)

    def summary(self) -> dict[str, Any]:
        """Steps, episodes that ended, and their mean return, as JSON values."""
        made = self.dataset.manifest
        return {"steps": made.n_steps, "episodes": made.n_episodes, "mean_return": made.mean_return}

    def facts(self) -> Mapping[str, Any]:
        """Steps, episodes, mean return, and where it is."""
        return {**self.summary(), "path": self.path}
