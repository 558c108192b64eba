"""`kdcli distill-many`: the teachers of several tasks to students that share weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.distillation.config import DistillConfig, TasksConfig
from kdcli.options import given

Teachers = Annotated[list[Path], typer.Argument(metavar="TEACHER...", help="One for each task, each with its own env.")]


@command
def distill_many(
    teachers: Teachers,
    source: LoadConfig,
    config: DistillConfig,
    tasks: TasksConfig,
    *,
    output: Output,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Distill the teachers of several tasks into students that share what is between input layer and head.

    Writes a folder: a student for each task, which acts alone, and tasks.json: parameters, scores, what was forgotten.
    Labels are counted for each task.
    """
    from kdcli.api.distill_many import SCHEMA
    from kdcli.api.distill_many import distill_many as run

    done = run(teachers, output, force=force, progress=console.listener, **given(source, config, tasks))
    if as_json:
        console.answer_json(SCHEMA, {"path": str(output), **done.summary(), "schema": SCHEMA})
    else:
        console.answer(output)
