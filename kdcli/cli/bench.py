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
from kdcli.progress import Listener, Note
from kdcli.reports.config import ReportConfig

if TYPE_CHECKING:
    from kdcli.benchmarks.entry import BenchEntry
    from kdcli.reports.gates import Outcome
    from kdcli.spec import Json

Agents = Annotated[
    list[Path], typer.Argument(metavar="AGENT", help="Checkpoints, agent files, ONNX files; the reference first.")
]
Reference = Annotated[
    Path | None, typer.Option("--reference", "--teacher", metavar="<path>", help="Compare with this one instead.")
]
Written = Annotated[Path | None, typer.Option("--output", "-o", metavar="<path>", help="Write x.json or x.md, too.")]
_STATES = 512  # on which an agent and its export are compared


@command
def bench(
    agents: Agents,
    config: BenchConfig,
    source: LoadConfig,
    asked: ReportConfig,
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
    from kdcli.agents.threads import one_thread
    from kdcli.compression.comparison import measure
    from kdcli.reports.gates import exit_code
    from kdcli.runtimes.prepare import check

    check(config.runtimes)
    gates = asked.gates()
    _check_output(output, force, asked.per_episode and not as_json)
    chosen = source.without_vecnormalize() if no_vecnormalize else source
    entries = _read(_in_order(agents, reference), chosen, console.listener)
    with one_thread():
        record, outcomes = measure(entries, config, gates, asked.per_episode, console.listener)
    if output is not None:
        _write(output, record, outcomes, force)
        console.listener(Note(f"written to {output}"))
    if as_json:
        console.answer_json(record["schema"], record)
    else:
        show(console, record, outcomes)
    return exit_code(outcomes)


def _check_output(output: Path | None, force: bool, needs_json: bool) -> None:
    from kdcli.artifact import refuse_existing

    suffix = output.suffix if output is not None else ""
    if output is not None and suffix not in (".json", ".md"):
        raise UsageError(f"cannot write {output}", "a benchmark is written as .json or as .md", "name it bench.json")
    if needs_json and suffix != ".json":
        raise UsageError("--per-episode has nowhere to go", "returns are kept in JSON only", "add --json or -o x.json")
    if output is not None:
        refuse_existing(output, force)


def _in_order(agents: Sequence[Path], reference: Path | None) -> list[Path]:
    return list(agents) if reference is None else [reference, *(path for path in agents if path != reference)]


def _read(paths: Sequence[Path], source: LoadConfig, listener: Listener) -> list[BenchEntry]:
    from kdcli.benchmarks.entries import enter
    from kdcli.checkpoints.read import find_file, read_any, sniff

    files = [find_file(path) for path in paths]
    # Statistics that are named belong to the checkpoints among the files: the other kinds have their own.
    complete = source.model_copy(update={"vecnormalize": "auto"})
    return enter(files, [read_any(file, source if sniff(file) == "sb3" else complete, listener) for file in files])


def _write(output: Path, record: Json, outcomes: list[Outcome], force: bool) -> None:
    from kdcli.artifact import write_bytes, write_json
    from kdcli.reports.markdown import markdown

    if output.suffix == ".json":
        write_json(output, record, force)
    else:
        write_bytes(output, markdown(record, outcomes).encode(), force)


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
