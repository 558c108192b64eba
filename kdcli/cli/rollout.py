"""`kdcli rollout`: an agent's experience to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, command
from kdcli.options import given
from kdcli.rollouts.config import RolloutConfig

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
    from kdcli.api.rollout import rollout as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    done = run(agent, output, student=student, force=force, progress=console.listener, **given(chosen, config))
    if as_json:
        digest = artifact.sha256(output / "manifest.json")
        console.answer_json("kdcli.rollout/1", {"path": str(output), **done.summary(), "sha256": digest})
    else:
        console.answer(output)
