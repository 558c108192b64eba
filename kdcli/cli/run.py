"""`kdcli run`: a recipe, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli.console import Console
from kdcli.cli.options import Allow, AsJson, command
from kdcli.errors import Exit
from kdcli.files import MAX_RECORDS, read_json, whatever_it_says

if TYPE_CHECKING:
    from kdcli.spec import Json

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A file, or one of: kdcli recipes list.")]
Folder = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="<path>", help="Folder of the run.  [default: runs/RECIPE]")
]
Said = Annotated[
    list[str] | None, typer.Option("--set", metavar="<key=value>", help="A value it needs, or STEP.option; repeatable.")
]
Again = Annotated[bool, typer.Option("--force", help="Make again what was made with other options.")]


@command
def run(
    recipe: Recipe,
    *,
    said: Said = None,
    output: Folder = None,
    allow: Allow = None,  # heard by `command`
    force: Again = False,
    as_json: AsJson = False,
    console: Console,
) -> int:
    """Do a recipe's steps. Stop it at any time: the same command keeps what is done and goes on.

    Exit code 1: a gate of a bench failed, or a step did not come to what was asked; 3: one is undecided.
    """
    from kdcli.recipes.run import run as run_recipe

    done = run_recipe(recipe, output, values=said or (), force=force, progress=console.listener)
    if as_json:
        console.answer_json(done.record["schema"], done.record)
    else:
        _show(console, done.record, done.path)
    return (
        Exit.GATE_FAILED if "failed" in done.verdicts else Exit.UNDECIDED if "undecided" in done.verdicts else Exit.DONE
    )


def _show(console: Console, answer: Json, place: Path) -> None:
    from kdcli.cli.bench import show
    from kdcli.reports.gates import Outcome

    for step in answer["steps"]:
        if step["do"] == "bench":
            with whatever_it_says(place / step["output"], "--force makes it again"):
                record = read_json(place / step["output"], MAX_RECORDS)
                show(console, record, [Outcome(**gate) for gate in record["gates"]])
            console.answer("")
    rows = [(s["name"], s["do"], place / s["output"], "kept" if s["kept"] else "made") for s in answer["steps"]]
    console.table(("step", "does", "output", ""), rows)
