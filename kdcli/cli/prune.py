"""`kdcli prune`: an agent to one with fewer numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.errors import Exit
from kdcli.options import given
from kdcli.pruning.config import PruneConfig

if TYPE_CHECKING:
    from kdcli.api.prune import PruneResult
    from kdcli.compression.file_costs import Cost
    from kdcli.compression.pruning import Row

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
    from kdcli.api.prune import prune as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    done = run(agent, output, force=force, progress=console.listener, **given(chosen, config))
    if as_json:
        console.answer_json("kdcli.prune/1", {"path": str(output), **done.summary()})
    elif config.lossless:
        _show_lossless(console, done, output)
    else:
        _show(console, done, output)
    return Exit.DONE if done.reached else Exit.GATE_FAILED


def _show_lossless(console: Console, done: PruneResult, output: Path) -> None:
    table = [
        (name, str(row["inputs"]), row["network"], f"{row['params']:,}", f"{row['macs']:,}", *_told(done.costs[name]))
        for name, row in done.sizes().items()
    ]
    console.table(("", "inputs", "layers", "params", "mult-adds", *_COSTS), table)
    _say_slower(console, done.costs)
    proved = done.proved
    ties = f", {proved.alike.ties} ties" if proved.alike.ties else ""
    if proved.left_out:
        console.answer(f"not done, since other episodes spoke against it: {', '.join(proved.left_out)}")
    console.answer(f"acts alike on {proved.alike.n_states:,} states of other episodes{ties}\n{output}")


def _told(cost: Cost) -> tuple[str, str, str]:
    latency, faster = cost.latency_us or 0.0, cost.faster[1] or 1.0
    return f"{cost.onnx_bytes:,}", f"{latency:.1f} us", f"{faster:.2f}x"


def _say_slower(console: Console, found: Mapping[str, Cost]) -> None:
    for name, cost in found.items():
        if cost.is_slower:
            console.answer(f"{name} is slower than before in onnxruntime, at batch 1, though it is smaller")


def _show(console: Console, done: PruneResult, output: Path) -> None:
    sparse = any(row.nonzeros < 0.99 * row.params for row in done.rows)
    zeros = ("not zero", "sparse bytes") if sparse else ()
    head = ("", "layers", "params", *zeros, "mult-adds", *_COSTS, "return", "score [95%]")
    console.table(head, [_cells(row, sparse) for row in done.rows])
    _say_slower(console, {row.name: row.cost for row in done.rows})
    if sparse:
        console.answer("zeros change no shape: the ONNX file and onnxruntime's time stay what they were")
    if not done.reached:
        last = done.rounds[-1]
        console.answer(f"stopped: at {last.n_params:,} parameters the score was {last.score:.3f}")
    console.answer(output)


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
