"""`kdcli verify`: whether files are as kdcli wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.api.verify import Checked
from kdcli.cli.console import Console, aligned
from kdcli.cli.options import AsJson, command
from kdcli.errors import Exit

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Agent files, datasets, ONNX files, folders of runs or studies.")
]


@command
def verify(paths: Paths, *, as_json: AsJson = False, console: Console) -> int:
    """Compare what kdcli wrote, byte for byte, with the digests that were written with it.

    Exit code 0: all is as it was written; 4: something is damaged or missing, and which.
    """
    from kdcli.api.verify import verify as run

    done = run(*paths)
    if as_json:
        console.answer_json("kdcli.verify/1", done.summary())
    else:
        rows = [("damaged" if one.damage else "ok", _line(one)) for one in done.checked]
        console.answer(aligned(rows))
    return Exit.DONE if done.passed else Exit.REFUSED


def _line(one: Checked) -> str:
    return str(one.path) if one.damage is None else f"{one.path}: {one.damage}"
