"""`kdcli prune`: an agent to one with fewer numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.errors import UsageError
from kdcli.pruning.config import PruneConfig

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent

AgentFile = Annotated[Path, typer.Argument(metavar="AGENT", help="Agent file, or a checkpoint that load reads.")]


@command
def prune(
    agent: AgentFile,
    config: PruneConfig,
    source: LoadConfig,
    *,
    output: Output,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Take away what an agent does not need: inputs that never vary, idle units, heads that choose no action."""
    from kdcli.agents.threads import one_thread
    from kdcli.artifact import parent, refuse_existing
    from kdcli.checkpoints.read import find_file, read
    from kdcli.pruning.step import lossless_to

    if not config.lossless:
        raise UsageError("nothing is asked for", "prune needs to know what may go", "give --lossless")
    refuse_existing(output, force)
    file = find_file(agent)
    whole = read(file, source.without_vecnormalize() if no_vecnormalize else source, console.listener)
    with one_thread():
        done = lossless_to(output, whole, [parent(file)], config, force)
    rows = {"before": _sizes(whole), "after": _sizes(done.agent)}
    if as_json:
        facts = {"path": str(output), "n_states": done.alike.n_states, "ties": done.alike.ties}
        console.answer_json("kdcli.prune/1", {**facts, "sizes": rows})
        return
    console.table(
        ("", "inputs", "layers", "params", "mult-adds"),
        [
            (name, f"{row['inputs']}", row["network"], f"{row['params']:,}", f"{row['macs']:,}")
            for name, row in rows.items()
        ],
    )
    ties = f", {done.alike.ties} ties" if done.alike.ties else ""
    console.answer(f"acts alike on {done.alike.n_states:,} states of other episodes{ties}\n{output}")


def _sizes(agent: Agent) -> dict[str, Any]:
    from kdcli.graph.count import count
    from kdcli.graph.trace import trace

    counted, network = count(trace(agent)), agent.policy.network
    return {
        "inputs": network.inputs,
        "network": str(network),
        "params": counted.n_params,
        "macs": counted.multiply_adds,
        "constants": counted.n_constants,
    }
