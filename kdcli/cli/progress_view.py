"""Showing progress: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

from kdcli.durations import format_duration
from kdcli.escapes import one_line
from kdcli.progress import Event, Note

Clock = Callable[[], float]


def facts(event: Event) -> str:
    """The facts of an event: `loss 0.12, agreement 0.98`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in event.facts.items())


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def amount(event: Event) -> str:
    """How far an event is: `40% (4,000 of 10,000)`, or only what is done when the total is not known."""
    if event.total <= 0:
        return f"{event.done:,.0f}"
    return f"{event.done / event.total:.0%} ({event.done:,.0f} of {event.total:,.0f})"


def is_finished(event: Event) -> bool:
    """Whether the event is the last of its stage."""
    return 0 < event.total <= event.done


class Lines:
    """One line every `every` seconds and one at the end of each stage, each given to `write`.

    A stage ends when its total is reached, when another stage speaks, or when the work is over.
    """

    def __init__(self, write: Callable[[str], None], every: float = 10.0, clock: Clock = time.monotonic) -> None:
        self._write, self._every, self._clock = write, every, clock
        self._latest: Event | None = None  # of the stage under way, None once its last line is written
        self._ended = ""
        self._began = self._wrote = clock()

    def __call__(self, heard: Event | Note) -> None:
        """Show what happened."""
        if isinstance(heard, Note):
            self._write(heard.text)
        elif not (heard.stage == self._ended and is_finished(heard)):
            self._follow(heard)

    def close(self) -> None:
        """Write the last line of the stage under way."""
        if self._latest is not None:
            self._say(self._latest)
            self._ended, self._latest = self._latest.stage, None

    def _follow(self, event: Event) -> None:
        if self._latest is None or self._latest.stage != event.stage:
            self.close()
            self._began = self._wrote = self._clock()
        self._latest = event
        if is_finished(event):
            self.close()
        elif self._clock() - self._wrote >= self._every:
            self._say(event)

    def _say(self, event: Event) -> None:
        self._wrote = self._clock()
        took = format_duration(round(self._wrote - self._began))
        told = facts(event)
        self._write(f"{event.stage}: {amount(event)} in {took}" + (f", {told}" if told else ""))


class Bars:
    """One bar a stage, drawn again at most ten times a second, and only when work speaks.

    There is no drawing thread: it would disturb the latencies that a benchmark measures.
    """

    def __init__(self, err: TextIO, clock: Clock = time.monotonic) -> None:
        self._clock, self._drawn, self._latest = clock, float("-inf"), Event("")
        self._tasks: dict[str, Any] = {}
        self._progress = _bars(err)
        self._progress.start()

    def __call__(self, heard: Event | Note) -> None:
        """Show what happened."""
        if isinstance(heard, Note):
            self._progress.console.print(one_line(heard.text), markup=False, highlight=False)
            return
        if heard.stage != self._latest.stage:
            self._draw(self._latest)
        self._latest = heard
        if is_finished(heard) or self._clock() - self._drawn >= 0.1:
            self._draw(heard)

    def close(self) -> None:
        """Draw the last state and give the terminal back."""
        self._draw(self._latest)
        self._progress.stop()

    def _draw(self, event: Event) -> None:
        if not event.stage:
            return
        self._drawn = self._clock()
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._progress.add_task(one_line(event.stage), facts="")
        total = event.total if event.total > 0 else None
        task = self._tasks[event.stage]
        self._progress.update(task, completed=event.done, total=total, facts=one_line(facts(event)), refresh=True)


def _bars(err: TextIO) -> Any:
    """A rich Progress on `err`; it leaves stdout alone."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    screen = Console(file=err, force_terminal=True, force_interactive=True)
    name, said = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[facts]}", markup=False)
    columns = (name, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), said)
    return Progress(*columns, console=screen, auto_refresh=False, redirect_stdout=False)
