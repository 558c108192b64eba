"""What a study keeps on disk: one file a cell, written whole, and made by one process at a time.

study.json                  what was asked for
teachers/NAME.json          a teacher's and random play's returns on the initial states of the measurement
cells/NAME.json             one student: options, score, agreement, size, seconds, every episode and round
students/NAME.safetensors   the students
table.md, table.json        what follows from the cells so far
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from kdcli import artifact
from kdcli.errors import RefusedError, UsageError
from kdcli.locks import claim
from kdcli.outputs import checked
from kdcli.spec import Json
from kdcli.studies.records import CellRecord, TeacherRecord

_RECORDS: dict[str, type[BaseModel]] = {"cells": CellRecord, "teachers": TeacherRecord}


@dataclass(frozen=True)
class Folder:
    """The folder of one study."""

    path: Path

    def open(self, asked: Json) -> None:
        """Begin, or go on.

        Raises:
            UsageError: there is something else at this path, or it cannot be written.
        """
        mark = self.path / "study.json"
        if self.path.exists() and not mark.exists() and (self.path.is_file() or any(self.path.iterdir())):
            raise UsageError(f"{self.path} exists", "it is not the folder of a study", "name another output")
        artifact.write_json(mark, asked, force=True)

    def student(self, name: str) -> Path:
        """Where the student of a cell is."""
        return self.path / "students" / f"{name}.safetensors"

    def read(self, kind: str, name: str) -> Json | None:
        """The record of a cell (`cells`) or a teacher (`teachers`); None where there is none yet.

        Raises:
            RefusedError: it is damaged.
        """
        file = self._file(kind, name)
        if not file.exists():
            return None
        return checked(file, _RECORDS[kind], "remove it, and it is made again")

    def check_student(self, name: str) -> None:
        """Compare the student of a cell with the digest in the cell's record.

        Raises:
            RefusedError: it is missing or damaged.
        """
        record, file = self.read("cells", name), self.student(name)
        wanted = record and record.get("student_sha256")
        if wanted is None:
            return
        if not file.exists() or artifact.sha256(file) != wanted:
            why = "its content does not match its digest" if file.exists() else "it is missing"
            raise RefusedError(f"{file} is damaged", why, "run the study again, and it is made again")

    def write(self, kind: str, name: str, record: Json) -> None:
        """Keep a record, whole or not at all."""
        artifact.write_json(self._file(kind, name), record, force=True)

    def _file(self, kind: str, name: str) -> Path:
        return self.path / kind / f"{name}.json"

    def claim(self, name: str, wait: bool = False) -> AbstractContextManager[bool]:
        """Whether this process may make `name` now; nobody else may until it is done. With `wait`, it will."""
        return claim(self.path / ".locks" / name, wait)
