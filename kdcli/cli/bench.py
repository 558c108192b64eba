"""`kdcli bench`: agents side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.benchmarks.config import BenchConfig
from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, command
from kdcli.errors import UsageError
from kdcli.options import given
from kdcli.progress import Note
from kdcli.reports.config import ReportConfig

if TYPE_CHECKING:
    from kdcli.reports.gates import Outcome
    from kdcli.spec import Json

Agents = Annotated[
    list[Path], typer.Argument(metavar="AGENT", help="Checkpoints, agent files, ONNX files; the reference first.")
]
Reference = Annotated[
    Path | None, typer.Option("--reference", "--teacher", metavar="<path>", help="Compare with this one instead.")
]
Written = Annotated[Path | None, typer.Option("--output", "-o", metavar="<path>", help="Write x.json or x.md, too.")]


@command
def bench(
    agents: Agents,
    config: BenchConfig,
    source: LoadConfig,
    report: ReportConfig,
    *,
    reference: Reference = None,
    no_vecnormalize: NoVecNormalize = False,
    output: Written = None,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> int:
    """Compare agents with the first one: size, latency, returns on the same initial states, and a verdict.

    A gate that fails is exit code 1, one that these episodes do not decide is 3. Gates know: score, return, tail, cvar,
    worst, agreement, kl, params, macs, bytes, latency_us, p99_us, latency_torch_us, latency_ratio, throughput.
    """
    from kdcli.api.bench import bench as run
    from kdcli.reports.gates import exit_code

    if report.per_episode and not as_json and (output is None or output.suffix != ".json"):
        raise UsageError("--per-episode has nowhere to go", "returns are kept in JSON only", "add --json or -o x.json")
    chosen = source.without_vecnormalize() if no_vecnormalize else source
    files, options = _in_order(agents, reference), given(chosen, config, report)
    done = run(*files, output=output, force=force, progress=console.listener, **options)
    if output is not None:
        console.listener(Note(f"written to {output}"))
    if as_json:
        console.answer_json(done.record["schema"], done.record)
    else:
        show(console, done.record, done.gates)
    return exit_code(done.gates)


def _in_order(agents: Sequence[Path], reference: Path | None) -> list[Path]:
    return list(agents) if reference is None else [reference, *(path for path in agents if path != reference)]


def show(console: Console, record: Json, outcomes: Sequence[Outcome] = ()) -> None:
    """Write a benchmark's record as tables with their notes."""
    from kdcli.reports.notes import notes
    from kdcli.reports.table import gates, lab, lab_line, machine_line, quality, speed, title

    console.answer(title(record))
    console.table(*quality(record).padded())
    console.answer("\n" + (machine_line(record) or "not timed"))
    console.table(*speed(record).padded())
    if (runtimes := lab(record)) is not None:
        console.answer(f"\n{lab_line(record)}")
        console.table(*runtimes.padded())
    if outcomes:
        console.answer("")
        console.table(*gates(outcomes).padded())
    console.answer("\n" + "\n".join(notes(record)))
