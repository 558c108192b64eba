"""`kdcli prune`: an agent to one with fewer numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.errors import Exit
from kdcli.pruning.config import PruneConfig

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.pruning.lossless import Proved
    from kdcli.recipes.prune import Outcome, Row

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
) -> int:
    """Take away what an agent does not need, then what it needs least; after each cut it is distilled back.

    Exit code 0: it came to the size asked for; 1: its score stopped it before that, and the file is the last that
    passed.
    """
    from kdcli.agents.threads import one_thread
    from kdcli.artifact import parent, refuse_existing
    from kdcli.checkpoints.read import find_file, read
    from kdcli.pruning.step import lossless_to
    from kdcli.recipes.prune import prune_to

    refuse_existing(output, force)
    file = find_file(agent)
    whole = read(file, source.without_vecnormalize() if no_vecnormalize else source, console.listener)
    with one_thread():
        if config.lossless:
            proved = lossless_to(output, whole, [parent(file)], config, force)
            _answer_lossless(console, whole, proved, output, as_json)
            return Exit.DONE
        done = prune_to(output, whole, [parent(file)], config, force, console.listener)
    _answer(console, done, output, as_json)
    return Exit.DONE if done.pruned.reached else Exit.GATE_FAILED


def _answer_lossless(console: Console, whole: Agent, done: Proved, output: Path, as_json: bool) -> None:
    rows = {"before": _sizes(whole), "after": _sizes(done.agent)}
    if as_json:
        facts = {"path": str(output), "n_states": done.alike.n_states, "ties": done.alike.ties}
        facts["left_out"] = list(done.left_out)
        console.answer_json("kdcli.prune/1", {**facts, "sizes": rows})
        return
    table = [
        (name, str(row["inputs"]), row["network"], f"{row['params']:,}", f"{row['macs']:,}")
        for name, row in rows.items()
    ]
    console.table(("", "inputs", "layers", "params", "mult-adds"), table)
    ties = f", {done.alike.ties} ties" if done.alike.ties else ""
    if done.left_out:
        console.answer(f"not done, since other episodes spoke against it: {', '.join(done.left_out)}")
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


def _answer(console: Console, done: Outcome, output: Path, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        rows = [asdict(row) for row in done.rows]
        rounds = [asdict(cut) for cut in done.pruned.rounds]
        facts = {"path": str(output), "reached": done.pruned.reached, "rounds": rounds, "agents": rows}
        console.answer_json("kdcli.prune/1", facts)
        return
    sparse = any(row.nonzeros < 0.99 * row.params for row in done.rows)
    zeros = ("not zero", "sparse bytes") if sparse else ()
    head = ("", "layers", "params", *zeros, "mult-adds", "ONNX bytes", "return", "score [95%]")
    console.table(head, [_cells(row, sparse) for row in done.rows])
    if sparse:
        console.answer("zeros change no shape: the ONNX file and onnxruntime's time stay what they were")
    if not done.pruned.reached:
        last = done.pruned.rounds[-1]
        console.answer(f"stopped: at {last.n_params:,} parameters the score was {last.score:.3f}")
    console.answer(output)


def _cells(row: Row, sparse: bool) -> tuple[str, ...]:
    zeros = (f"{row.nonzeros:,}", f"{row.sparse_bytes:,}") if sparse else ()
    judged = row.comparison
    score = "1" if judged is None else f"{judged.score:.3f} [{judged.low:.3f}, {judged.high:.3f}]"
    sizes = f"{row.macs:,}", f"{row.onnx_bytes:,}"
    return (row.name, row.network, f"{row.params:,}", *zeros, *sizes, f"{row.mean_return:.1f}", score)
