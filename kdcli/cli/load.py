"""`kdcli load`: a checkpoint to an agent file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import Force, Output, command
from kdcli.options import given

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint or its folder; see: kdcli list formats.")]
NoVecNormalize = Annotated[bool, typer.Option("--no-vecnormalize", help="Its observations were not normalized.")]


@command
def load(
    checkpoint: Checkpoint,
    source: LoadConfig,
    *,
    output: Output,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    console: Console,
) -> None:
    """Turn a checkpoint into an agent file. Nothing in it is executed, and the library that wrote it is not needed."""
    from kdcli.api.load import load as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    run(checkpoint, output, force=force, progress=console.listener, **given(chosen))
    console.answer(output)
