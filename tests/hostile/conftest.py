"""The folder of seed files, made once, and the table of what became of the corpus, printed at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import seeds
from tables import TABLES


@pytest.fixture(scope="session")
def seed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One valid file of every format, to be harmed."""
    folder = tmp_path_factory.mktemp("seeds")
    seeds.make_all(folder)
    return folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the tables that the tests of the corpus left behind."""
    for table in TABLES:
        terminalreporter.write_sep("-", "hostile and broken files")
        terminalreporter.write_line(table)
