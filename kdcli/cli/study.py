"""`kdcli study`: variants of a distillation in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli.console import Console, aligned
from kdcli.cli.options import Allow, AsJson, command

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="Teachers, a base, and what is varied.")]
Folder = Annotated[Path, typer.Option("--output", "-o", metavar="<path>", help="Folder of the study, or to go on in.")]
Again = Annotated[bool, typer.Option("--force", help="Make cells again that were made with other options.")]


@command
def study(
    file: StudyFile,
    *,
    output: Folder,
    allow: Allow = None,  # heard by `command`
    force: Again = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Distill every variant with several seeds and show what differs, with intervals.

    Stop it at any time: the same command goes on. Several processes may work in one folder.
    """
    from kdcli.api.study import study as run
    from kdcli.studies.markdown import about, others, over_all, students

    answer = run(file, output, force=force, progress=console.listener).table
    if as_json:
        console.answer_json(answer["schema"], answer)
        return
    for teacher in answer["teachers"]:
        shown = students(teacher, answer)
        lines = [f"{teacher['name']}: {about(teacher)}", aligned([shown.columns, *shown.rows]), *others(teacher), ""]
        console.answer("\n".join(lines))
    if answer["overall"]:
        shown = over_all(answer)
        console.answer(f"over all teachers\n{aligned([shown.columns, *shown.rows])}\n")
    console.answer(output / "table.md")
