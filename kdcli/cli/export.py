"""`kdcli export`: an agent to a file that another runtime reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.exporters.config import ExportConfig
from kdcli.progress import Note

AgentFile = Annotated[Path, typer.Argument(metavar="AGENT", help="Agent file, or a checkpoint that load reads.")]


@command
def export(
    agent: AgentFile,
    config: ExportConfig,
    source: LoadConfig,
    *,
    output: Output,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Write an agent for another runtime: raw observation in, action for env.step out, checked on its own play."""
    from kdcli.artifact import parent, refuse_existing
    from kdcli.checkpoints.read import find_file, read
    from kdcli.exporters.states import gather, played
    from kdcli.exporters.step import convert, resolved, stem_of

    config = resolved(config, output)
    refuse_existing(output, force)
    file = find_file(agent)
    loaded = read(file, source.without_vecnormalize() if no_vecnormalize else source, console.listener)
    # An env that was named must be the right one; one that the files name may be gone or not installed.
    n, seed = config.states, config.seed
    states = played(loaded, n, seed) if source.env else gather(loaded, n, seed, console.listener)
    made = convert(loaded, states, config, [parent(file)], stem_of(output))
    made.save(output, force)
    said = made.summary()
    console.listener(Note(_sentence(said)))
    if as_json:
        console.answer_json("kdcli.export/1", {"path": str(output), **said})
    else:
        console.answer(output)


def _taken(memory: dict[str, Any]) -> str:
    """What it takes of a machine's memory."""
    code = "".join(f", {n:,} of code ({cpu})" for cpu, n in memory["code"].items())
    return f"; {memory['constants']:,} bytes of constants{code}, {memory['work']:,} of RAM"


def _sentence(said: dict[str, Any]) -> str:
    size, alike = f"{said['n_params']:,} parameters in {said['size_bytes']:,} bytes", said["parity"]
    ties = f", {alike['ties']} ties" if alike["ties"] else ""
    others = list(said["files"])[1:]
    beside = f", with {' and '.join(others)} beside it" if others else ""
    taken = _taken(said["memory"]) if "memory" in said else ""
    return f"{size}{beside}{taken}; acts as the agent does in {alike['n_states']:,} states ({alike['source']}{ties})"
