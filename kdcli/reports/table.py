"""A benchmark for people: two tables that fit 120 columns, a title that says how it was played, notes that explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdcli.reports.gates import Outcome
from kdcli.spec import EnvSpec, Json

NONE = "-"
_SLOWER = 0.95  # two sessions of one file differ by less
Cell = Callable[[Json], str]


@dataclass(frozen=True)
class Table:
    """Rows of text under columns; a column whose every cell is absent is left out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def padded(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows with numbers to the right: an absent one among them would turn a column to the left."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [[_pad(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in
                 (self.columns, *self.rows)]
        return lines[0], lines[1:]


def _pad(cell: str, width: int, column: int) -> str:
    return cell if column == 0 else f"{cell:>{width}}"
