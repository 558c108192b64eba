"""The table of commands. A command's module is imported when the command is used, never to list it."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kdcli.cli.console import Console
from kdcli.errors import unknown

COMMANDS = {
    "load": ("kdcli.cli.load:load", "Turn a checkpoint into an agent file."),
    "inspect": ("kdcli.cli.inspect:inspect", "Show what a file holds."),
    "rollout": ("kdcli.cli.rollout:rollout", "Record an agent's experience as a dataset."),
    "distill": ("kdcli.cli.distill:distill", "Distill a teacher into a smaller student."),
    "distill-many": ("kdcli.cli.distill_many:distill_many", "Distill several tasks into students that share."),
    "improve": ("kdcli.cli.improve:improve", "Improve a small agent by its return."),
    "prune": ("kdcli.cli.prune:prune", "Take away what an agent does not need."),
    "quantize": ("kdcli.cli.quantize:quantize", "Put an agent on fewer bits."),
    "export": ("kdcli.cli.export:export", "Write an agent for another runtime."),
    "bench": ("kdcli.cli.bench:bench", "Compare agents: size, latency, returns, a verdict."),
    "compress": ("kdcli.cli.compress:compress", "Run the whole line: rollout, distill, export, bench."),
    "run": ("kdcli.cli.run:run", "Do a recipe: a chain of steps from a file."),
    "verify": ("kdcli.cli.verify:verify", "Compare what kdcli wrote with its digests."),
    "recipes": ("kdcli.cli.recipes:recipes", "List, show, copy and check recipes."),
    "study": ("kdcli.cli.study:study", "Variants of a distillation, several seeds each, in one table."),
    "list": ("kdcli.cli.list:list_parts", "List the parts that options name: losses, networks, ..."),
}
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EPILOG = "Every command also takes --quiet (-q), --debug and --version."


class LazyGroup(TyperGroup):
    """A group that knows its commands by name; typer's own type names are private, hence Any."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command.

        Raises:
            UsageError: there is none of this name.
        """
        if cmd_name not in COMMANDS:
            raise unknown("command", cmd_name, COMMANDS)
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name, epilog=_EPILOG)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table into the help page."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _kdcli(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but answers and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Compress a trained reinforcement-learning agent into the smallest policy that is as good.

    stdout is the answer, stderr the conversation. Exit codes: 0 done, 1 a gate failed, 2 usage or environment,
    3 undecided, 4 a file refused, 70 a bug of kdcli, 130 and 143 interrupted.
    """


def run(words: list[str], console: Console) -> int:
    """Parse `words` and run the command they name; its exit code."""
    # Without rich's markup: square brackets in a help text stay, the page is the same in a pipe, and comes sooner.
    program = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    program.callback(epilog="Every option of this page works after a command, too.")(_kdcli)
    group = typer.main.get_command(program)
    try:
        with group.make_context("kdcli", words, obj=console) as context:
            return int(group.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code
