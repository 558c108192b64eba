"""A benchmark as Markdown: for a file, a pull request, a pipeline's summary page."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.escapes import markdown as escaped
from kdcli.escapes import markdown_cell
from kdcli.reports.gates import Outcome
from kdcli.reports.notes import notes
from kdcli.reports.table import WORDS, Table, gates, lab, lab_line, machine_line, quality, speed, title
from kdcli.spec import Json


def markdown(record: Json, outcomes: Sequence[Outcome] = ()) -> str:
    """Title, tables, gates and notes."""
    parts = [
        f"### {escaped(title(record))}",
        table(quality(record)),
        table(speed(record)),
        *([table(runtimes), escaped(lab_line(record))] if (runtimes := lab(record)) else []),
        table(gates(outcomes)) if outcomes else "",
        "\n".join(f"- {escaped(note)}" for note in notes(record)),
        escaped(machine_line(record)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(made: Table) -> str:
    """One table; words to the left, numbers to the right."""
    rule = ["---" if column in WORDS else "---:" for column in made.columns]
    return "\n".join(
        f"| {' | '.join(row)} |" for row in (made.columns, rule, *(map(markdown_cell, r) for r in made.rows))
    )
