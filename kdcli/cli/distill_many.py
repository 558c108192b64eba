"""`kdcli distill-many`: the teachers of several tasks to students that share weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.distillation.config import DistillConfig, TasksConfig

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
    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.checkpoints.read import find_file, read_any
    from kdcli.distillation.teacher_chains import distill_tasks_to

    files = [find_file(path) for path in teachers]
    agents = [read_any(file, source, console.listener) for file in files]
    parents = [artifact.parent(file) for file in files]
    with one_thread():
        record = distill_tasks_to(output, agents, parents, config, tasks, force, console.listener)
    if as_json:
        console.answer_json(record.pop("schema"), {"path": str(output), **record})
    else:
        console.answer(output)
