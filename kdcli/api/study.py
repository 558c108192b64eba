"""`kdcli.study`: variants of a distillation, several seeds each, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.spec import Json
    from kdcli.studies.config import Study


def check(study: Study) -> None:
    """Say all that can be said before work begins.

    Raises:
        UsageError: a variant whose options cannot be read, or two of one name.
    """
    from kdcli.studies.plan import cells

    cells(study)


def study(
    study: Path | str | Mapping[str, Any], output: Path | str, *, force: bool = False, progress: Listener = silent
) -> StudyResult:
    """Distill every variant with several seeds, and compare them with intervals.

    What is there already is kept: the same call goes on. Several processes may work in one folder.

    Args:
        study: A TOML file, or its tables as a mapping; see `kdcli.studies.config.Study`.
        output: Folder of the study.
        force: Make cells again that were made with other options.
        progress: Called with `kdcli.progress.Event` and `Note`.

    Raises:
        UsageError: the study cannot be read, or its folder holds cells made with other options (without `force`).
    """
    from kdcli.agents.threads import one_thread
    from kdcli.studies.config import Study
    from kdcli.studies.run import run
    from kdcli.toml_config import built, read_toml

    if isinstance(study, Mapping):
        asked = built(Study, study, "study")
    else:
        asked = built(Study, read_toml(Path(study)), Path(study).name)
    check(asked)
    with one_thread():
        return StudyResult(run(asked, Path(output), force, progress), Path(output))


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(Result):
    """The table, schema `kdcli.study/1` (see `kdcli.studies.run.tabulate`), and the folder it is in."""

    table: Json
    path: Path

    def facts(self) -> Mapping[str, Any]:
        """The study's name, and how many of its cells are there."""
        cells = self.table["cells"]
        return {"name": self.table["name"], "cells": f"{cells['there']} of {cells['total']}", "path": self.path}
