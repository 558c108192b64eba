"""Two ways to run kdcli with the fake commands: in this process, and as a program."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_commands import table
from ran import REPO, Ran

from kdcli.cli.commands import COMMANDS
from kdcli.cli.console import Console
from kdcli.cli.main import main

SETTINGS = ("PYTHONUNBUFFERED", "CI", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def kdcli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a command line in this process."""
    for name, row in table().items():
        monkeypatch.setitem(COMMANDS, name, row)

    def run(*argv: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        code = main(argv, Console(out, err))
        return Ran(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def program() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start kdcli, with the fake commands, as a program of its own."""
    started = ExitStack()

    def start(*argv: str, env: dict[str, str] | None = None, closed: int = 0, **streams: Any) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        words = [sys.executable, str(Path(__file__).with_name("fake_commands.py")), *argv]
        if closed:
            words = ["sh", "-c", f'exec "$0" "$@" {closed}>&-', *words]
        clean = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        place = {**clean, "PYTHONPATH": str(REPO), **(env or {})}
        return started.enter_context(subprocess.Popen(words, text=True, env=place, cwd=REPO, **streams))

    with started:
        yield start
