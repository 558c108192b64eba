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
    from kdcli.compression.clock import Clock

    clock = Clock(config.budget)  # before the heavy imports: they count

    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.checkpoints.read import find_file, read_any
    from kdcli.cli.bench import show
    from kdcli.compression.compress import compress as run
    from kdcli.compression.run_folder import save
    from kdcli.compression.summary import headline

    artifact.refuse_existing(output, force)
    file = find_file(teacher)
    agent = read_any(file, source.without_vecnormalize() if no_vecnormalize else source, console.listener)
    parents = [artifact.parent(file)]
    with one_thread():
        done = run(agent, config, clock, parents, console.listener)
    answer = save(output, done, config, parents, force)
    if as_json:
        console.answer_json(answer["schema"], answer)
    else:
        show(console, answer["bench"])
        console.answer(f"\n{headline(answer)}\n{output / ('teacher.onnx' if answer['minimal'] else 'student.onnx')}")
    return CODES[done.verdict] if all(one.holds for one in done.targets) else Exit.GATE_FAILED
