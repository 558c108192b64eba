"""`kdcli recipes`: the recipes that kdcli brings along, and whether one makes sense."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli.console import Console, aligned
from kdcli.cli.options import Allow, AsJson, Force, OptionalOutput, command
from kdcli.errors import UsageError, unknown
from kdcli.files import MAX_TOML, read_bytes, read_text

Action = Annotated[str, typer.Argument(metavar="list|show|copy|check", help="What to do.")]
Which = Annotated[str | None, typer.Argument(metavar="RECIPE", help="A file, or a name of the list.")]
Said = Annotated[list[str] | None, typer.Option("--set", metavar="<key=value>", help="As in kdcli run; repeatable.")]
ACTIONS = ("list", "show", "copy", "check")


@command
def recipes(
    action: Action,
    recipe: Which = None,
    *,
    output: OptionalOutput = None,
    said: Said = None,
    allow: Allow = None,  # heard by `command`
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """List recipes, show one, copy one to change it (-o my.toml), or check one without running it."""
    if action not in ACTIONS:
        raise unknown("action", action, ACTIONS)
    if action == "list":
        _list(as_json, console)
    elif recipe is None:
        raise UsageError(f"kdcli recipes {action} needs a recipe", "none is named", "see: kdcli recipes list")
    elif action == "check":
        _check(recipe, said or [], as_json, console)
    elif action == "copy":
        console.answer(_copy(recipe, output, force))
    else:
        console.answer(read_text(_file(recipe), MAX_TOML).rstrip())


def _file(recipe: str) -> Path:
    from kdcli.recipes.recipe import find_recipe

    return find_recipe(recipe)


def _list(as_json: bool, console: Console) -> None:
    from kdcli.recipes.recipe import builtins, read_recipe

    found = {name: read_recipe(file) for name, file in builtins().items()}
    if as_json:
        given = {name: {key: value.help for key, value in r.given.items()} for name, r in found.items()}
        rows = {name: {"about": r.about, "given": given[name]} for name, r in found.items()}
        console.answer_json("kdcli.recipes/1", {"recipes": rows})
    else:
        console.answer(aligned([(name, r.about) for name, r in found.items()]))


def _copy(recipe: str, output: Path | None, force: bool) -> Path:
    from kdcli.artifact import write_bytes

    file = _file(recipe)
    return write_bytes(output or Path(file.name), read_bytes(file, MAX_TOML), force)


def _check(recipe: str, said: list[str], as_json: bool, console: Console) -> None:
    """Read every option, and find every input that is named."""
    from kdcli.recipes.plan import plan
    from kdcli.recipes.recipe import read_recipe, resolve

    file = _file(recipe)
    resolved = resolve(file.stem, read_recipe(file), said)
    steps = plan(resolved)
    needs = {name: resolved.recipe.given[name].help for name in resolved.open}
    if as_json:
        rows = [{"name": step.name, "do": step.do, "output": step.file} for step in steps]
        console.answer_json("kdcli.recipe/1", {"recipe": resolved.name, "needs": needs, "steps": rows})
    else:
        lines = [f"{resolved.name} makes sense: {len(steps)} steps"]
        console.answer("\n".join(lines + [f"--set {name}=...  {help_}" for name, help_ in needs.items()]))
