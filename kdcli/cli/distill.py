"""`kdcli distill`: a teacher to a smaller student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.distillation.config import ChainConfig, DistillConfig
from kdcli.errors import UsageError
from kdcli.progress import Listener

if TYPE_CHECKING:
    from kdcli.agents.actor import Actor

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
    chain: ChainConfig,
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
    from kdcli.agents.threads import one_thread
    from kdcli.checkpoints.read import find_file
    from kdcli.datasets import Dataset
    from kdcli.distillation.online import distill_to
    from kdcli.distillation.teacher_chains import chain_to

    files = [find_file(path) for path in (teacher, *(also or []))]
    teachers = _teachers(files, source, config.combine if chain.teachers == "combined" else None, console.listener)
    if dataset and not chain.plain:
        raise UsageError("--dataset is not for chains", "every link collects states of its own", "leave it out")
    data = Dataset.open(dataset).labelled(config.capacity) if dataset else None
    parents = [artifact.parent(file) for file in (*files, *([dataset / "manifest.json"] if dataset else []))]
    with one_thread():
        if chain.plain:
            done = distill_to(output, teachers[0], parents, config, data, force, console.listener)
        else:
            done = chain_to(output, teachers, parents, config, chain, force, console.listener)
    if as_json:
        best = max(r.mean_return for r in done.rounds)
        facts = {"path": str(output), "params": done.student.n_params, "losses": list(done.losses), "return": best}
        console.answer_json("kdcli.distill/1", {**facts, "rounds": [vars(r) for r in done.rounds]})
    else:
        console.answer(output)


def _teachers(files: Sequence[Path], source: LoadConfig, combine: str | None, listener: Listener) -> list[Actor]:
    """The agents of the files, seen as one where `combine` says how."""
    from kdcli.agents.ensemble import Ensemble
    from kdcli.checkpoints.read import read, read_any

    if len(files) == 1:
        return [read_any(files[0], source, listener)]
    agents = [read(file, source, listener) for file in files]
    return [*agents] if combine is None else [Ensemble(agents, combine)]
