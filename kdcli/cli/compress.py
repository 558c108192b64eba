"""`kdcli compress`: the whole line in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, command
from kdcli.compression.config import CompressConfig
from kdcli.errors import Exit
from kdcli.options import given

Teacher = Annotated[Path, typer.Argument(metavar="TEACHER", help="Any file or folder that kdcli load reads.")]
RunFolder = Annotated[Path, typer.Option("--output", "-o", metavar="<path>", help="Folder for everything it makes.")]

CODES = {"holds": Exit.DONE, "fails": Exit.GATE_FAILED, "undecided": Exit.UNDECIDED}


@command
def compress(
    teacher: Teacher,
    config: CompressConfig,
    source: LoadConfig,
    *,
    output: RunFolder,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> int:
    """Find the smallest student that holds, export it, and prove it through the exported file.

    Exit code 0: the student holds --min-score; 1: the best one found fails it, or misses a --target; 3: undecided.
    """
    from kdcli.api.compress import compress as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    done = run(teacher, output=output, force=force, progress=console.listener, **given(chosen, config))
    answer = done.record
    if as_json:
        console.answer_json(answer["schema"], {**answer, "path": str(output)})
    else:
        from kdcli.cli.bench import show
        from kdcli.compression.summary import headline

        show(console, answer["bench"])
        console.answer(f"\n{headline(answer)}\n{output / ('teacher.onnx' if answer['minimal'] else 'student.onnx')}")
    return CODES[done.verdict] if all(one.holds for one in done.targets) else Exit.GATE_FAILED
