"""The set-up commands of README.md: `python .ci/readme.py N` prints the one-line command in its N-th fenced block."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
SET_UP = "python3 -m venv "


def commands(text: str) -> list[str]:
    """Each line behind a `$ ` in a console block that begins with a new environment, in order."""
    lines = [line for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith(f"$ {SET_UP}")]


if __name__ == "__main__":
    first, second = commands(README.read_text())  # there are two, and a third would have to be run, too
    print((first, second)[int(sys.argv[1]) - 1])
