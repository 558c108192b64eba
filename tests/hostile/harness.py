"""Gives a corpus to workers, starts another one where one dies, and draws the table of what became of it."""

from __future__ import annotations

import json
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
PATIENCE, START = 90.0, 180.0  # seconds by the clock; a worker counts those it works


@dataclass
class Result:
    """What became of one case."""

    title: str
    format: str
    kind: str
    codes: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0


class Process:
    """A worker that is started again when it dies or does not answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    def ask(self, number: int) -> dict[str, Any]:
        """The worker's answer about one case; that it died is an answer, too."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER), str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
            if "ready" not in (self._answer(START) or {}):
                raise RuntimeError("a worker did not start")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        return self._answer(PATIENCE) or {"problems": [self._bury()]}

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        return json.loads(line) if line else None

    def _bury(self) -> str:
        """End a worker that died or hangs; how it ended."""
        process, self._process = self._process, None
        assert process is not None
        try:
            died = process.wait(1.0)
        except subprocess.TimeoutExpired:
            died = None
        process.kill()
        process.communicate()
        return f"no answer in {PATIENCE:.0f} seconds" if died is None else f"the process died: {process.returncode}"

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def run(folder: Path, numbers: Iterable[int], cases: list[Any], n_workers: int = 2) -> list[Result]:
    """What became of the cases of these numbers, in their order."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    order = list(numbers)
    for number in order:
        waiting.put(number)
    found: dict[int, Result] = {}

    def serve() -> None:
        process = Process(folder)
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return process.close()
            answer = process.ask(number)
            answer.pop("number", None)
            case = cases[number]
            found[number] = Result(case.title, case.format, case.kind, **answer)

    threads = [threading.Thread(target=serve) for _ in range(n_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in order]


# Columns of the table, and the kinds of harm that they count.
COLUMNS = {
    "pickle": ("pickle",),
    "zip": ("zip", "zip name"),
    "tensor": ("tensor", "view"),
    "header": ("safetensors",),
    "graph": ("onnx",),
    "record": ("record",),
    "text": ("json", "yaml"),
    "cut": ("cut",),
    "flip": ("flip", "block"),
    "other": ("unharmed", "place", "content"),
}


def table(results: list[Result]) -> str:
    """A row a format: files tried by harm, and what became of them; then the slowest and the largest."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.format, []).append(result)
    head = ("format", *COLUMNS, "tried", "refused", "loaded", "asked", "failed", "seconds", "MB")
    rows = [head, *((name, *_counts(group)) for name, group in groups.items()), ("all", *_counts(results))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(_cell(cell, widths[n], n) for n, cell in enumerate(row)) for row in rows]
    code_ran = sum("CODE RAN" in result.problems for result in results)
    good = sum(not result.problems for result in results)
    slowest, largest = max(results, key=lambda r: r.seconds), max(results, key=lambda r: r.megabytes)
    lines += [
        f"{len(results)} files tried, {good} handled, {code_ran} ran code",
        f"slowest: {slowest.seconds:.2f} s, {slowest.title}",
        f"largest: {largest.megabytes:.0f} MB, {largest.title}",
    ]
    return "\n".join(lines)


def _cell(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)


def _counts(results: list[Result]) -> tuple[str, ...]:
    """Files by harm, with those that failed behind a minus; then by outcome: exit code 4, 0, 2, and any that failed."""
    harms = []
    for kinds in COLUMNS.values():
        found = [result for result in results if result.kind in kinds]
        failed = sum(bool(result.problems) for result in found)
        harms.append((f"{len(found)}-{failed}" if failed else str(len(found))) if found else "")
    codes = [set(result.codes.values()) for result in results]
    outcomes = [found == {4} for found in codes], [0 in found for found in codes], [2 in found for found in codes]
    numbers = (len(results), *map(sum, outcomes), sum(bool(result.problems) for result in results))
    worst = max(result.seconds for result in results), max(result.megabytes for result in results)
    return (*harms, *map(str, numbers), f"{worst[0]:.2f}", f"{worst[1]:.0f}")
