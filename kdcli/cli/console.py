"""The only owner of stdout and stderr: stdout is the answer, stderr is the conversation."""

from __future__ import annotations

import json
import math
import os
import re
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from kdcli.errors import UsageError, shell, spell
from kdcli.escapes import one_line, printable
from kdcli.progress import Event, Note

if TYPE_CHECKING:
    from kdcli.cli.progress_view import Bars, Lines

Rows = Sequence[Sequence[object]]

_NUMBER = re.compile(r"[-+]?(\d|\.\d|inf|nan)")


def aligned(rows: Rows) -> str:
    """Rows as lines of plain text in columns, however wide; numbers to the right."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [_is_numeric(column[1:] or column) for column in columns]
    return "\n".join(_line(row, widths, right) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [f"{cell:>{w}}" if r else f"{cell:<{w}}" for cell, w, r in zip(row, widths, right, strict=True)]
    return "  ".join(padded).rstrip()


def _is_numeric(column: Sequence[str]) -> bool:
    return all(_NUMBER.match(cell) for cell in column)


def _json_values(data: Any) -> Any:
    """`data` with null where a number is not finite: JSON has no NaN, and an answer must not be lost for one."""
    if isinstance(data, Mapping):
        return {key: _json_values(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_json_values(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


class Console:
    """Two streams and who may write what on them. `quiet` silences all but answers and errors."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, quiet: bool = False) -> None:
        self.out: TextIO | None = _standard_output() if out is None else out
        self.err: TextIO | None = sys.stderr if err is None else err
        self.quiet = quiet
        self._view: Lines | Bars | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close_view()
        if kind is None and self.out:
            self.out.flush()

    def answer(self, text: object) -> None:
        """Write the answer: a path, a word, lines."""
        self._close_view()
        if self.out is None:
            raise UsageError("cannot write the answer", "stdout is closed", "redirect it to a file")
        print(printable(str(text)) if self.out.isatty() else text, file=self.out, flush=True)

    def answer_json(self, schema: str, data: Mapping[str, Any]) -> None:
        """Write the answer as one JSON object; `schema` names its kind and version, such as `kdcli.bench/1`."""
        self.answer(json.dumps(_json_values({"schema": schema, **data}), indent=2, allow_nan=False))

    def table(self, columns: Sequence[str], rows: Rows) -> None:
        """Write the answer as a table: drawn on a terminal; elsewhere plain lines, as wide as needed, nothing cut."""
        if self.out is None or not self.out.isatty():
            self.answer(aligned([columns, *rows]))
        else:
            self._close_view()
            _draw(self.out, columns, rows)

    def error(self, lines: Sequence[str]) -> None:
        """Write an error, one line each, quiet or not."""
        self._close_view()
        for number, line in enumerate(lines):
            self._tell(line if number else f"kdcli: {line}")

    def traceback(self, error: BaseException) -> None:
        """Write where `error` came from."""
        import traceback

        self._close_view()
        if self.err:
            print(printable("".join(traceback.format_exception(error))), end="", file=self.err)

    def listener(self, heard: Event | Note) -> None:
        """Show progress and notes on stderr; this is the `kdcli.progress.Listener` that work is given."""
        if self.quiet or self.err is None:
            return
        if self._view is None:
            self._view = self._open_view(self.err)
        self._view(Note(spell(heard.message, shell)) if isinstance(heard, Note) else heard)

    @contextmanager
    def keep_stdout(self) -> Iterator[None]:
        """While a command works, what libraries print goes to stderr: only an answer reaches stdout."""
        with open(os.devnull, "w") as nowhere:
            target = nowhere if self.quiet or self.err is None else self.err
            with redirect_stdout(target):
                yield

    def drop_broken_streams(self) -> bool:
        """Turn the streams that take no more output to the null device; whether there were any."""
        broken = [stream for stream in (self.out, self.err) if stream and _is_broken(stream)]
        for stream in broken:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return bool(broken)

    def is_live(self) -> bool:
        """Whether a moving bar may be drawn. Colour is another question: FORCE_COLOR says nothing here."""
        dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
        return bool(self.err and self.err.isatty()) and not (self.quiet or dumb or os.environ.get("CI"))

    def _open_view(self, err: TextIO) -> Lines | Bars:
        from kdcli.cli.progress_view import Bars, Lines

        return Bars(err) if self.is_live() else Lines(self._tell)

    def _close_view(self) -> None:
        if self._view is not None:
            view, self._view = self._view, None
            view.close()

    def _tell(self, line: str) -> None:
        if self.err:
            print(one_line(line), file=self.err, flush=True)


def _draw(out: TextIO, columns: Sequence[str], rows: Rows) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as Screen
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    for name, *column in zip(columns, *cells, strict=True):
        table.add_column(Text(name), overflow="fold", justify="right" if _is_numeric(column) else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    Screen(file=out).print(table)


def _standard_output() -> TextIO | None:
    """stdout, able to take any file name; None when it is closed."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout


def _is_broken(stream: TextIO) -> bool:
    """Whether a stream still holds what it cannot write, or is a pipe that nobody reads."""
    try:
        stream.flush()
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(state & select.POLLERR for _, state in poll.poll(0))
    except (AttributeError, OSError):  # a system without poll, a stream without a descriptor
        return False
