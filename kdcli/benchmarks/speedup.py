"""Where a speed-up comes from: the runtime, the architecture, or the precision of its numbers.

    total = t(reference, base) / t(agent, runtime) = runtime x architecture x precision

    runtime       t(reference, base) / t(reference, runtime)
    architecture  t(reference, runtime) / t(twin, runtime)
    precision     t(twin, runtime) / t(agent, runtime)

`base` is the first runtime that the reference was timed in. The twin of an agent with rounded numbers is the one with
as many multiply-adds whose numbers are float32; an agent in float32 is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdcli.agents.packed_weights import stored_as
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import Latencies

FULL = "fp32"


@dataclass(frozen=True)
class Speedup:
    """Times faster; None where one of the two was not timed, or where there is no twin to compare with."""

    runtime: float | None
    architecture: float | None
    precision: float | None
    total: float | None


def precision(entry: BenchEntry) -> str:
    """What the weights of the deployed policy are stored as, see `stored_as`."""
    if entry.exported is None:
        return FULL if entry.agent is None else stored_as(entry.agent.policy)
    told = entry.exported.record.get("precision")
    return str(told["weights"]) if told else FULL


def split(found: Latencies, pair: tuple[str, str], runtime: str, base: str, twin: str | None) -> Speedup:
    """The speed-up of an agent in `runtime`; `pair` are its name and the reference's.

    Without a `twin`, what precision brings is part of the architecture's share.
    """
    name, reference = pair
    ours, theirs = (name, runtime), (reference, runtime)
    like = (twin or name, runtime)
    return Speedup(
        runtime=found.times_faster(theirs, (reference, base)),
        architecture=found.times_faster(like, theirs),
        precision=None if twin in (None, name) else found.times_faster(ours, like),
        total=found.times_faster(ours, (reference, base)),
    )
