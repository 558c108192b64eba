"""The study: cells that are not there yet are made, one after the other; the table follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kdcli import artifact
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Event, Listener, Note, silent
from kdcli.spec import Json
from kdcli.studies.cell import differences, make
from kdcli.studies.config import Study
from kdcli.studies.folder import Folder
from kdcli.studies.markdown import page
from kdcli.studies.plan import Cell, cells, variants
from kdcli.studies.table import Records, overall, rows
from kdcli.studies.teacher_setup import TeacherSetup, set_up

SCHEMA = "kdcli.study/1"


def run(study: Study, output: Path, force: bool = False, listener: Listener = silent) -> Json:
    """Make what is missing and return the table (see `tabulate`).

    Another process may work in the same folder: each makes the cells that the other does not.

    Raises:
        UsageError: the study does not make sense, or its folder holds cells made with other options, without `force`.
    """
    todo, folder = cells(study), Folder(output)
    folder.open({"schema": SCHEMA, **study.model_dump(mode="json")})
    stands = {teacher.name: set_up(teacher, study, folder, listener) for teacher in study.teacher}
    stale = [] if force else _stale(todo, stands, folder)
    if stale:
        raise UsageError(
            f"{len(stale)} cells in {output} were made otherwise", f"{stale[0]}", "--force makes them again"
        )
    table = _refresh(study, folder)
    for done, cell in enumerate(todo):
        if _claimed(cell, stands[cell.teacher.name], folder, listener):
            table = _refresh(study, folder)
        listener(Event("study", done + 1, len(todo), {"cell": cell.name}))
    table = _refresh(study, folder)
    if table["cells"]["there"] < len(todo):
        left = len(todo) - table["cells"]["there"]
        listener(Note(f"{left} of {len(todo)} cells are being made by another process, which will finish the table"))
    return table


def _stale(todo: Sequence[Cell], stands: dict[str, TeacherSetup], folder: Folder) -> list[str]:
    """The cells that are there with other options, and which."""
    found = []
    for cell in todo:
        record = folder.read("cells", cell.name)
        if record is not None and (changed := differences(cell, stands[cell.teacher.name], record)):
            found.append(f"{cell.name}: {', '.join(changed)}")
    return found


def _claimed(cell: Cell, setup: TeacherSetup, folder: Folder, listener: Listener) -> bool:
    """Make a cell unless it is there or another process is at it; whether it was made."""
    with folder.claim(cell.name) as mine:
        if not mine:
            return False
        record = folder.read("cells", cell.name)
        if record is not None and not differences(cell, setup, record) and _is_whole(cell, folder, listener):
            return False
        folder.write("cells", cell.name, make(cell, setup, folder.student(cell.name)))
    return True


def _is_whole(cell: Cell, folder: Folder, listener: Listener) -> bool:
    """Whether the student of a cell is as it was written; one that is not is made again, and that is said."""
    try:
        folder.check_student(cell.name)
    except RefusedError as error:
        listener(Note(f"{error.what} ({error.why}): it is made again"))
        return False
    return True


def _refresh(study: Study, folder: Folder) -> Json:
    table = tabulate(study, folder)
    artifact.write_json(folder.path / "table.json", table, force=True)
    artifact.write_bytes(folder.path / "table.md", page(table).encode(), force=True)
    return table


def tabulate(study: Study, folder: Folder) -> Json:
    """What follows from the cells so far.

    name, seeds, episodes, confidence, grid     of the study
    cells       {there, total}
    teachers    each with name, env, params, return and random (means), rows (see `table.Row`)
    overall     over all teachers (see `table.Overall`); empty for one
    """
    names, found = list(variants(study)), _records(study, folder)
    teachers = [
        _teacher(folder.read("teachers", name) or {}) | {"rows": [asdict(r) for r in rows(of, names, study.confidence)]}
        for name, of in found.items()
    ]
    over = overall(list(found.values()), names, study.confidence) if len(found) > 1 else []
    there = sum(len(seeds) for of in found.values() for seeds in of.values())
    kept = ("name", "seeds", "episodes", "confidence", "grid", "base")
    return {
        "schema": SCHEMA,
        **study.model_dump(mode="json", include=set(kept)),
        "cells": {"there": there, "total": len(found) * len(names) * study.seeds},
        "teachers": teachers,
        "overall": [asdict(row) for row in over],
    }


def _teacher(known: Json) -> Json:
    return {
        "name": known["name"],
        "env": known["env"],
        "params": known["params"],
        "return": known["teacher"]["mean"],
        "random": known["random"]["mean"],
    }


def _records(study: Study, folder: Folder) -> dict[str, Records]:
    """Teacher -> variant -> seed -> the cell that is there."""
    found: dict[str, dict[str, dict[int, Json]]] = {teacher.name: {} for teacher in study.teacher}
    for cell in cells(study):
        record = folder.read("cells", cell.name)
        if record is not None:
            found[cell.teacher.name].setdefault(cell.variant, {})[cell.config.seed] = record
    return dict(found)
