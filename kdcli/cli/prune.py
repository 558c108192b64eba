"""`kdcli prune`: an agent to one with fewer numbers."""

from __future__ import annotations

from collections.abc import Mapping
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
    from kdcli.compression.file_costs import Cost
    from kdcli.compression.pruning import Outcome, Row
    from kdcli.pruning.lossless import Proved

_COSTS = ("ONNX bytes", "onnxruntime", "x faster")
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
    from kdcli.compression.pruning import prune_to
    from kdcli.pruning.lossless_file import lossless_to

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
    from kdcli.compression.pruning import lossless_costs

    found = lossless_costs(whole, done.agent)
    rows = {"before": _sizes(whole, found["before"]), "after": _sizes(done.agent, found["after"])}
    if as_json:
        facts = {"path": str(output), "n_states": done.alike.n_states, "ties": done.alike.ties}
        facts["left_out"] = list(done.left_out)
        console.answer_json("kdcli.prune/1", {**facts, "sizes": rows})
        return
    table = [
        (name, str(row["inputs"]), row["network"], f"{row['params']:,}", f"{row['macs']:,}", *_told(found[name]))
        for name, row in rows.items()
    ]
    console.table(("", "inputs", "layers", "params", "mult-adds", *_COSTS), table)
    _say_slower(console, found)
    ties = f", {done.alike.ties} ties" if done.alike.ties else ""
    if done.left_out:
        console.answer(f"not done, since other episodes spoke against it: {', '.join(done.left_out)}")
    console.answer(f"acts alike on {done.alike.n_states:,} states of other episodes{ties}\n{output}")


def _told(cost: Cost) -> tuple[str, str, str]:
    latency, faster = cost.latency_us or 0.0, cost.faster[1] or 1.0
    return f"{cost.onnx_bytes:,}", f"{latency:.1f} us", f"{faster:.2f}x"


def _say_slower(console: Console, found: Mapping[str, Cost]) -> None:
    for name, cost in found.items():
        if cost.is_slower:
            console.answer(f"{name} is slower than before in onnxruntime, at batch 1, though it is smaller")


def _sizes(agent: Agent, cost: Cost) -> dict[str, Any]:
    from kdcli.graph.count import count
    from kdcli.graph.trace import trace

    counted, network = count(trace(agent)), agent.policy.network
    return {
        "inputs": network.inputs,
        "network": str(network),
        "params": counted.n_params,
        "macs": counted.multiply_adds,
        "constants": counted.n_constants,
        "onnx_bytes": cost.onnx_bytes,
        "latency_us": cost.latency_us,
        "faster": cost.faster[1],
    }


def _answer(console: Console, done: Outcome, output: Path, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        rows = [_flat(row) for row in done.rows]
        rounds = [asdict(cut) for cut in done.pruned.rounds]
        facts = {"path": str(output), "reached": done.pruned.reached, "rounds": rounds, "agents": rows}
        console.answer_json("kdcli.prune/1", facts)
        return
    sparse = any(row.nonzeros < 0.99 * row.params for row in done.rows)
    zeros = ("not zero", "sparse bytes") if sparse else ()
    head = ("", "layers", "params", *zeros, "mult-adds", *_COSTS, "return", "score [95%]")
    console.table(head, [_cells(row, sparse) for row in done.rows])
    _say_slower(console, {row.name: row.cost for row in done.rows})
    if sparse:
        console.answer("zeros change no shape: the ONNX file and onnxruntime's time stay what they were")
    if not done.pruned.reached:
        last = done.pruned.rounds[-1]
        console.answer(f"stopped: at {last.n_params:,} parameters the score was {last.score:.3f}")
    console.answer(output)


def _flat(row: Row) -> dict[str, Any]:
    from dataclasses import asdict

    told = asdict(row)
    cost = told.pop("cost")
    return {**told, **{key: cost[key] for key in ("onnx_bytes", "latency_us")}, "faster": cost["faster"][1]}


def _cells(row: Row, sparse: bool) -> tuple[str, ...]:
    zeros = (f"{row.nonzeros:,}", f"{row.sparse_bytes:,}") if sparse else ()
    judged = row.comparison
    if judged is None:
        score = "1"
    elif judged.score is None:  # the agent is not shown to be better than random play
        score = "-"
    else:
        score = f"{judged.score:.3f} [{judged.low:.3f}, {judged.high:.3f}]"
    sizes = f"{row.macs:,}", *_told(row.cost)
    return (row.name, row.network, f"{row.params:,}", *zeros, *sizes, f"{row.mean_return:.1f}", score)
