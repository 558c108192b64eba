"""`kdcli distill`: a teacher to a smaller student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.distillation.config import DistillConfig

Teacher = Annotated[Path, typer.Argument(metavar="TEACHER", help="Any file or folder that kdcli load reads.")]
Recorded = Annotated[Path | None, typer.Option("--dataset", metavar="<path>", help="Recorded states to begin with.")]

Also = Annotated[
    list[Path] | None, typer.Option("--also", metavar="<path>", help="One more teacher of the same env; repeatable.")
]


@command
def distill(
    teacher: Teacher,
    source: LoadConfig,
    config: DistillConfig,
    *,
    output: Output,
    also: Also = None,
    dataset: Recorded = None,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Distill a teacher into a smaller student; the best by its return in the env is kept."""
    from kdcli import artifact
    from kdcli.agents.agent import Acts
    from kdcli.agents.ensemble import Ensemble
    from kdcli.agents.threads import one_thread
    from kdcli.checkpoints.read import find_file, read, read_any
    from kdcli.datasets import Dataset
    from kdcli.distillation.step import distill_to

    files = [find_file(path) for path in (teacher, *(also or []))]
    agent: Acts = read_any(files[0], source, console.listener)
    if also:
        agent = Ensemble([read(file, source, console.listener) for file in files], config.combine)
    parents = [artifact.parent(file) for file in (*files, *([dataset / "manifest.json"] if dataset else []))]
    data = Dataset.open(dataset).labelled(config.capacity) if dataset else None
    with one_thread():
        done = distill_to(output, agent, parents, config, data, force, console.listener)
    if as_json:
        best = max(r.mean_return for r in done.rounds)
        facts = {"path": str(output), "params": done.student.n_params, "losses": list(done.losses), "return": best}
        console.answer_json("kdcli.distill/1", {**facts, "rounds": [vars(r) for r in done.rounds]})
    else:
        console.answer(output)
