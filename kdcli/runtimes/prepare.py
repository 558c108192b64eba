"""Contenders made ready for the runtimes that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

from kdcli.agents.states import States
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.program import Program
from kdcli.envs.vector import Vector
from kdcli.errors import KdcliError, UsageError
from kdcli.exporters.c.run import find_compiler
from kdcli.exporters.states import played_in
from kdcli.progress import Listener, Note, silent
from kdcli.rollouts.evaluate import collect_turns
from kdcli.rollouts.seeds import first_seed
from kdcli.runtimes import RUNTIMES
from kdcli.runtimes.runtime import Runtime, RuntimeEntry


def check(names: Sequence[str]) -> None:
    """Look for everything that the runtimes called `names` need.

    Raises:
        UsageError: one is not known, or what it needs is not installed.
    """
    for name in names:
        found: Runtime = RUNTIMES.load(name)
        missing = [module for module in found.modules if find_spec(module) is None]
        if missing:
            raise UsageError(f"{name} cannot be timed here", f"{missing[0]} is not installed", found.install)
        if found.form == "c":
            find_compiler()


def enter(entry: BenchEntry, vector: Vector, n: int, seed: int, listener: Listener = silent) -> RuntimeEntry:
    """A contender with `n` states of its own play, and with an ONNX twin that was compared on them, or a note."""
    if entry.agent is None:
        states = collect_turns(entry.player, vector, n, first_seed("screen", seed))[0][:n]
        return RuntimeEntry(entry, States(states, "rollout"))
    found = RuntimeEntry(entry, played_in(vector, entry.agent, n, seed))
    if entry.exported is not None:
        return found
    try:
        return replace(found, entry=replace(entry, exported=found.exported("onnx").agent))
    except KdcliError as error:
        listener(Note(f"{entry.name} is not timed in onnxruntime: {error.what}: {error.why}"))
        return found


def equip(entrants: Sequence[RuntimeEntry], runtimes: Sequence[str], listener: Listener = silent) -> list[BenchEntry]:
    """Every contender with its programs in these runtimes; a note where it has none.

    Raises:
        UsageError: no contender can be run in any of them.
    """
    timed: list[dict[str, Program]] = [{} for _ in entrants]
    for name in runtimes:
        runtime: Runtime = RUNTIMES.load(name)
        for entrant, programs in zip(entrants, timed, strict=True):
            try:
                programs[name] = runtime.program(entrant)
            except KdcliError as error:
                listener(Note(f"{entrant.entry.name} is not timed in {name}: {error.what}: {error.why}"))
    if not any(timed):
        raise UsageError(f"nobody can be timed in {', '.join(runtimes)}", "the notes say why", "choose others")
    return [replace(entrant.entry, timed=made) for entrant, made in zip(entrants, timed, strict=True)]
