"""Contenders made ready for the runtimes that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

from kdcli.agents.states import States
from kdcli.benchmarks.contender import Contender
from kdcli.benchmarks.program import Program
from kdcli.envs.play import collect_turns
from kdcli.envs.seeds import first_seed
from kdcli.envs.vector import Vector
from kdcli.errors import KdcliError, UsageError
from kdcli.exporters.c.run import find_compiler
from kdcli.exporters.states import played_in
from kdcli.progress import Listener, Note, silent
from kdcli.recipes.runtimes import RUNTIMES
from kdcli.recipes.runtimes.runtime import Entrant, Runtime


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


def enter(contender: Contender, vector: Vector, n: int, seed: int, listener: Listener = silent) -> Entrant:
    """A contender with `n` states of its own play, and with an ONNX twin that was compared on them, or a note."""
    if contender.agent is None:
        states = collect_turns(contender.player, vector, n, first_seed("screen", seed))[0][:n]
        return Entrant(contender, States(states, "rollout"))
    found = Entrant(contender, played_in(vector, contender.agent, n, seed))
    if contender.exported is not None:
        return found
    try:
        return replace(found, contender=replace(contender, exported=found.exported("onnx").agent))
    except KdcliError as error:
        listener(Note(f"{contender.name} is not timed in onnxruntime: {error.what}: {error.why}"))
        return found


def equip(entrants: Sequence[Entrant], runtimes: Sequence[str], listener: Listener = silent) -> list[Contender]:
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
                listener(Note(f"{entrant.contender.name} is not timed in {name}: {error.what}: {error.why}"))
    if not any(timed):
        raise UsageError(f"nobody can be timed in {', '.join(runtimes)}", "the notes say why", "choose others")
    return [replace(entrant.contender, timed=made) for entrant, made in zip(entrants, timed, strict=True)]
