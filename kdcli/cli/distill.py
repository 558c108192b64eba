"""`kdcli distill`: a teacher to a smaller student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.distillation.config import ChainConfig, DistillConfig
from kdcli.options import given

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
    from kdcli.api.distill import distill as run

    teachers = [teacher, *(also or [])]
    said = given(source, config, chain)
    done = run(teachers, output, dataset=dataset, force=force, progress=console.listener, **said)
    if as_json:
        console.answer_json("kdcli.distill/1", {"path": str(output), **done.summary()})
    else:
        console.answer(output)
