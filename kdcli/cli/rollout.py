"""`kdcli rollout`: an agent's experience to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, command
from kdcli.errors import UsageError
from kdcli.rollouts.config import RolloutConfig

if TYPE_CHECKING:
    from kdcli.agents.actor import Actor
    from kdcli.spec import EnvSpec

AgentFile = Annotated[Path, typer.Argument(metavar="AGENT", help="Agent file, or anything that load reads.")]
Student = Annotated[Path | None, typer.Option("--student", metavar="<path>", help="Who acts beside the teacher.")]
Folder = Annotated[Path, typer.Option("--output", "-o", metavar="<folder>", help="Where to write the dataset.")]


@command
def rollout(
    agent: AgentFile,
    config: RolloutConfig,
    source: LoadConfig,
    *,
    output: Folder,
    student: Student = None,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Record an agent's experience as a dataset, its outputs beside every step. An interrupted run is continued."""
    from kdcli import artifact
    from kdcli.checkpoints.read import find_file, read_any
    from kdcli.rollouts import record as step
    from kdcli.rollouts.recording import Cast

    files = {role: find_file(path) for role, path in (("teacher", agent), ("student", student)) if path}
    chosen = source.without_vecnormalize() if no_vecnormalize else source
    teacher = read_any(files["teacher"], chosen, console.listener)
    other = read_any(files["student"], LoadConfig(env=_env(teacher).id), console.listener) if student else None
    parents = {role: artifact.parent(file) for role, file in files.items()}
    done = step.rollout(Cast(_env(teacher), teacher, other, parents), config, output, force, console.listener)
    if as_json:
        facts = {"steps": done.n_steps, "episodes": done.n_episodes, "mean_return": done.mean_return}
        digest = artifact.sha256(output / "manifest.json")
        console.answer_json("kdcli.rollout/1", {"path": str(output), **facts, "sha256": digest})
    else:
        console.answer(output)


def _env(agent: Actor) -> EnvSpec:
    if agent.env is None:
        raise UsageError(
            "the agent does not say which env it was trained on", "it plays in that", "name one with --env"
        )
    return agent.env
