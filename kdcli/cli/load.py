"""`kdcli load`: a checkpoint to an agent file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.options import Force, Output, command

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint or its folder; see: kdcli list formats.")]
NoVecNormalize = Annotated[bool, typer.Option("--no-vecnormalize", help="Its observations were not normalised.")]


@command
def load(
    checkpoint: Checkpoint,
    config: LoadConfig,
    *,
    output: Output,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    console: Console,
) -> None:
    """Turn a checkpoint into an agent file. Nothing in it is executed, and the library that wrote it is not needed."""
    from kdcli.checkpoints import files as step

    chosen = config.without_vecnormalize() if no_vecnormalize else config
    console.answer(step.load(checkpoint, output, chosen, force, console.listener))
