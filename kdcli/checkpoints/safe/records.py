"""What is left of an object that was never made: names and records, and how large a value of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from kdcli.checkpoints.safe.arrays import MalformedError

MAX_DEPTH = 256


@dataclass(frozen=True)
class Global:
    """A name in a pickle; never what it names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What would have been an object: the class or function called, its arguments, the state set on it."""

    called: Global
    args: tuple[Any, ...] = ()
    state: Any = None


def spelled(value: Any) -> str:
    """What is named: a class, a function, or whatever would have been made, by the name that it has in its code."""
    if isinstance(value, Record):
        inner = value.args[1] if len(value.args) > 3 and "class" in value.called.name else None
        if isinstance(inner, str):  # cloudpickle's class of a notebook: (type, name, bases, {__module__}, ...)
            within = value.args[3].get("__module__") if isinstance(value.args[3], dict) else None
            return f"{within}.{inner}"[:80] if isinstance(within, str) else inner[:80]
        return str(value.called)[:80]
    return str(value)[:80]


class _Extent(NamedTuple):
    """Of a value written out in full: how many values and letters it is, and how many levels deep."""

    size: int
    depth: int


def refuse_unreadable(value: Any, most: int) -> None:
    """Refuse what nobody could print, copy or compare: a small file can say a list of lists of lists without end.

    Raises:
        MalformedError: it contains itself, is nested too deeply, or is more than `most` values written out in full.
    """
    _measure(value, most, {}, MAX_DEPTH)


def _measure(value: Any, most: int, known: dict[int, _Extent | None], room: int) -> _Extent:
    inside = _parts(value)
    if not inside:
        return _Extent(len(value) if isinstance(value, str | bytes | bytearray) else 1, 0)
    extent = known.setdefault(id(value), None)
    if extent is None:
        if room == 0:
            raise MalformedError("it is deeper than any checkpoint, or contains itself")
        found = [_measure(part, most, known, room - 1) for part in inside]
        extent = _Extent(1 + sum(part.size for part in found), 1 + max(part.depth for part in found))
        known[id(value)] = extent
    if extent.size > most or extent.depth > MAX_DEPTH:
        raise MalformedError("it repeats its values beyond measure")
    return extent


def _parts(value: Any) -> list[Any]:
    match value:
        case list() | tuple() | set():
            return list(value)
        case dict():
            return [*value, *value.values()]
        case Record():
            return [value.args, value.state]
    return []
