"""`kdcli quantize`: an agent to one on fewer bits, measured in the file that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.errors import Exit
from kdcli.options import given
from kdcli.quantization.config import QuantizeConfig

if TYPE_CHECKING:
    from kdcli.compression.quantization import Way

AgentFile = Annotated[Path, typer.Argument(metavar="AGENT", help="Agent file, or a checkpoint that load reads.")]
Teacher = Annotated[
    Path | None, typer.Option("--teacher", metavar="<path>", help="Who labels states in training; default: AGENT.")
]
CODES = {"holds": Exit.DONE, "fails": Exit.GATE_FAILED, "undecided": Exit.UNDECIDED}


@command
def quantize(
    agent: AgentFile,
    config: QuantizeConfig,
    source: LoadConfig,
    *,
    output: Output,
    teacher: Teacher = None,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> int:
    """Put an agent on fewer bits: its weights on few levels, and its activations, too, where that is asked for.

    Exit code 0: it holds --min-score of the floats; 1: it fails; 3: undecided. With --auto, the best that holds is
    kept, or the floats where nothing helps.
    """
    from kdcli.api.quantize import quantize as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    done = run(agent, output, teacher=teacher, force=force, progress=console.listener, **given(chosen, config))
    if as_json:
        console.answer_json("kdcli.quantize/1", {"path": str(output), **done.summary()})
    else:
        columns = ("", "bits", "file", "onnx", "latency", "x faster", "at 256", "score", "verdict")
        console.table(columns, [_row(way, way is done.kept) for way in done.ways])
        console.answer(output)
    return CODES[done.verdict]


def _row(way: Way, kept: bool) -> tuple[str, ...]:
    score, low, high = way.score
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return (
        f"{way.name} *" if kept else way.name,
        f"{way.bits:.2f}",
        f"{way.agent_bytes:,} B",
        f"{way.cost.onnx_bytes:,} B",
        "-" if way.cost.latency_us is None else f"{way.cost.latency_us:.1f} us",
        *("-" if ratio is None else f"{ratio:.2f}x" for ratio in way.cost.faster.values()),
        "-" if score is None else f"{score:.3f}{interval}",
        way.verdict or "not played",
    )
