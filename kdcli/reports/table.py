"""A benchmark for people: two tables that fit 120 columns, a title that says how it was played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdcli.reports.gates import Outcome
from kdcli.spec import EnvSpec, Json

ABSENT = "-"
# Columns of words; all others hold numbers.
WORDS = ("agent", "runtime", "gate", "verdict", "result", "why", "variant", "shown")
Cell = Callable[[Json], str]
_USUAL = {"torch", "onnxruntime"}


@dataclass(frozen=True)
class Table:
    """Text in rows under columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def padded(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows with numbers to the right, also where one is absent."""
        lines = [self.columns, *self.rows]
        widths = [0 if cells[0] in WORDS else max(map(len, cells)) for cells in zip(*lines, strict=True)]
        padded = [[f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines]
        return padded[0], padded[1:]


def title(record: Json) -> str:
    """Which env, how it was played, which initial states."""
    play = record["play"]
    first, n = play["first_seed"], play["episodes"]
    env = EnvSpec.from_json(record["env"])
    return (
        f"{env}: {n} episodes (seeds {first} to {first + n - 1}), {play['mode']} play, cut at {play['max_steps']} steps"
    )


def machine_line(record: Json) -> str:
    """Where and how the timings were made; empty without timings."""
    timing, machine, versions = record["timing"], record["machine"], record["versions"]
    if timing is None:
        return ""
    runtimes = f"Time of one decision in onnxruntime {versions.get('onnxruntime')} (and torch {versions.get('torch')})"
    calls = f"{timing['calls']:,} calls in turns, one thread"
    return f"{runtimes}, {calls}; {machine['cpu']}, {machine['cores']} cores"


def speed(record: Json) -> Table:
    """Size and speed of every contender: the policy that acts, without critics; `faster` is within onnxruntime."""
    columns: dict[str, Cell] = {
        "agent": lambda c: c["name"],
        "params": lambda c: _count(c["size"]["params"]),
        "fewer": lambda c: _times(c["size"]["times_fewer_params"]),
        "mult-adds": lambda c: _count(c["size"]["multiply_adds"]),
        "ONNX bytes": lambda c: _count(c["size"]["onnx_bytes"]),
        "p50 us": lambda c: _of(c["latency"]["onnxruntime"], "p50_us", number),
        "p99 us": lambda c: _of(c["latency"]["onnxruntime"], "p99_us", number),
        "faster": lambda c: _times(c["speedup"]["architecture"]),
        "obs/s @256": lambda c: _of(c["latency"]["onnxruntime"], "throughput_256", _count),
        "torch us": lambda c: _of(c["latency"]["torch"], "p50_us", number),
    }
    return _table(columns, record["contenders"])


def lab(record: Json) -> Table | None:
    """Every contender in every runtime, beside the runtime's own empty call; None where only the usual two were timed.

    `from base` is how many times faster than the reference in the base; it is the product of the three after it.
    """
    timing = record["timing"]
    if timing is None or not {*timing["runtimes"]} - _USUAL:
        return None
    cells = [_lab_row(c, runtime, timing) for c in record["contenders"] for runtime in timing["runtimes"]]
    kept = [row for row in cells if row["p50 us"] != ABSENT]
    columns = [name for name in kept[0] if any(row[name] != ABSENT for row in kept)]
    return Table(columns, [[row[name] for name in columns] for row in kept])


def _lab_row(entry: Json, runtime: str, timing: Json) -> dict[str, str]:
    times, floor = entry["latency"][runtime], timing["floors"].get(runtime)
    split = entry["speedup"]["runtimes"][runtime]
    above = None if times is None or floor is None else max(0.0, times["p50_us"] - floor["p50_us"])
    return {
        "agent": entry["name"],
        "runtime": runtime,
        "p50 us": _of(times, "p50_us", number),
        "p99 us": _of(times, "p99_us", number),
        "floor us": _of(floor, "p50_us", number),
        "above": number(above),
        "@256 p50": _of(times, "batch_p50_us", number),
        "@256 p99": _of(times, "batch_p99_us", number),
        "from base": _times(split["total"]),
        "runtime x": _times(split["runtime"]),
        "network x": _times(split["architecture"]),
        "precision x": _times(split["precision"]),
    }


def lab_line(record: Json) -> str:
    """What the lab's table shows."""
    timing, versions = record["timing"], record["versions"]
    known = {name: versions[name] for name in ("stable-baselines3", "openvino", "numpy") if name in versions}
    base = f"{record['reference']} in {timing['base']}"
    return (
        "Runtimes, in turns, one thread; floor: the same runtime giving its input back; "
        f"from base: times as fast as {base} = runtime x network"
        f"{' x precision' if any(c['precision'] != 'fp32' for c in record['contenders']) else ''}"
        f" ({', '.join(f'{name} {version}' for name, version in known.items())})"
    )


def quality(record: Json) -> Table:
    """Returns, scores and verdicts of every contender, and of the random policy."""
    level = f"[{100 * record['confidence']:g}%]"
    columns: dict[str, Cell] = {
        "agent": lambda c: c["name"],
        f"return {level}": lambda c: _interval(c["return"], "mean"),
        "IQM": lambda c: number(c["return"]["iqm"]),
        "worst": lambda c: number(c["return"]["minimum"]),
        f"score {level}": lambda c: _interval(c["score"], "score") if c["score"] else _known_score(c["role"]),
        "success": lambda c: _interval(c["success"], "rate") if c.get("success") else ABSENT,
        "agree": lambda c: _of(c["similarity"], "agreement", lambda share: f"{share:.3f}"),
        "KL": lambda c: _of(c["similarity"], "kl", number),
        "verdict": lambda c: c["score"]["verdict"] if c["score"] else c["role"],
    }
    absent = {"score": None, "similarity": None, "role": "baseline", "name": "random"}
    random = [{**record["random"], **absent}] if record["random"]["shown"] else []
    return _table(columns, [*record["contenders"], *random])


def gates(outcomes: Sequence[Outcome]) -> Table:
    """What every gate came to."""
    rows = [(o.gate, o.agent, _measured(o), o.verdict, o.reason) for o in outcomes]
    columns = ("gate", "agent", "measured", "result", "why")
    return Table(columns, rows) if any(o.reason for o in outcomes) else Table(columns[:4], [row[:4] for row in rows])


def number(value: float | None) -> str:
    """Four digits that count, no more than three after the point; two digits of a very small one."""
    if value is None:
        return ABSENT
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"


def _table(columns: dict[str, Cell], entries: Sequence[Json]) -> Table:
    """One row a contender; a column in which everything is absent is left out."""
    cells = {name: [cell(entry) for entry in entries] for name, cell in columns.items()}
    kept = {name: column for name, column in cells.items() if set(column) != {ABSENT}}
    return Table(list(kept), list(zip(*kept.values(), strict=True)))


def _of(part: Json | None, key: str, write: Callable[[Any], str]) -> str:
    return ABSENT if part is None or part[key] is None else write(part[key])


def _interval(part: Json, key: str) -> str:
    value, low, high = part[key], part["low"], part["high"]
    return ABSENT if value is None else f"{number(value)} [{number(low)}, {number(high)}]"


def _known_score(role: str) -> str:
    return {"reference": "1", "baseline": "0"}.get(role, ABSENT)


def _measured(outcome: Outcome) -> str:
    if outcome.value is None:
        return ABSENT
    if outcome.low is not None:
        return _interval(asdict(outcome), "value")
    return _count(outcome.value) if isinstance(outcome.value, int) else number(outcome.value)


def _count(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _times(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}x"
