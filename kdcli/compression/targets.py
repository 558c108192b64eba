"""Agents measured against what their hardware allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kdcli.agents.agent import Agent
from kdcli.agents.folding import deployed
from kdcli.agents.states import States
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import BATCH, Latencies, time_all
from kdcli.benchmarks.target import Met, Target, met
from kdcli.errors import UsageError
from kdcli.exporters.c.stamp import constant_bytes, contract
from kdcli.graph.count import count
from kdcli.graph.trace import trace
from kdcli.progress import Listener, silent
from kdcli.runtimes import RUNTIMES
from kdcli.runtimes import prepare as lab
from kdcli.runtimes.runtime import RuntimeEntry

_SECONDS = 1.0  # to time one agent in one runtime


def read_targets(texts: Sequence[str]) -> list[Target]:
    """The targets, read, and everything looked for that measuring them needs.

    Raises:
        UsageError: one cannot be read or measured, its runtime is not known, or what that needs is not installed.
    """
    targets = [Target.parse(text) for text in texts]
    for target in targets:
        form, metric = RUNTIMES.load(target.runtime).form, target.bound.metric
        if (metric == "ram" and form != "c") or (metric == "bytes" and not form):
            why = f"{target.runtime} has no {'workspace of its own' if metric == 'ram' else 'file of its own'}"
            raise UsageError(f"cannot measure the target {str(target)!r}", why, "name c, as in c:ram<=1024")
    lab.check([target.runtime for target in targets if not target.of_the_network])
    return targets


def measure(
    agents: Mapping[str, Agent], targets: Sequence[Target], states: States, listener: Listener = silent
) -> dict[str, list[Met]]:
    """What every target comes to for each agent, by name; those that are about time are timed in turns.

    `states` are observations on which exports are compared and calls timed.

    Raises:
        UsageError, RefusedError: an agent cannot be exported to the runtime.
    """
    entrants = {name: _entrant(name, agent, states) for name, agent in agents.items()}
    found = _times(list(entrants.values()), targets, states, listener)
    return {
        name: [met(target, _value(entrant, target, found)) for target in targets] for name, entrant in entrants.items()
    }


def _value(entrant: RuntimeEntry, target: Target, found: Latencies | None) -> float:
    if target.is_timed and found is not None:
        return _timed(found, entrant.entry.name, target)
    return _SIZES[target.bound.metric](entrant, RUNTIMES.load(target.runtime).form)


def _entrant(name: str, agent: Agent, states: States) -> RuntimeEntry:
    alone = RuntimeEntry(BenchEntry(name, agent), states)
    return RuntimeEntry(BenchEntry(name, agent, alone.exported("onnx").agent), states)


def _times(
    entrants: Sequence[RuntimeEntry], targets: Sequence[Target], states: States, listener: Listener
) -> Latencies | None:
    runtimes = list(dict.fromkeys(target.runtime for target in targets if target.is_timed))
    if not runtimes:
        return None
    seconds = _SECONDS * len(runtimes) * len(entrants) ** 0.5
    return time_all(lab.equip(entrants, runtimes, listener), states.observations, seconds, listener)


def _timed(found: Latencies, name: str, target: Target) -> float:
    """Microseconds of one call."""
    timing = found.timings[name, target.runtime]
    if target.bound.batch == BATCH:
        return timing.batch_p50_us if target.bound.metric == "latency_us" else timing.batch_p99_us
    return timing.p50_us if target.bound.metric == "latency_us" else timing.p99_us


def _bytes(entrant: RuntimeEntry, form: str) -> int:
    files = entrant.exported(form).files
    return constant_bytes(files) if form == "c" else len(next(iter(files.values())))


_SIZES: Mapping[str, Callable[[RuntimeEntry, str], float]] = {
    "params": lambda entrant, _: count(trace(deployed(entrant.agent))).n_params,
    "macs": lambda entrant, _: count(trace(deployed(entrant.agent))).multiply_adds,
    "bytes": _bytes,
    "ram": lambda entrant, form: contract(entrant.exported(form).files)["work_bytes"],
}
