"""Which sizes of student meet the targets, found out before any is trained."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.benchmarks.target import Met, Target
from kdcli.compression.candidate_trainer import CandidateTrainer
from kdcli.compression.size_grid import Architecture
from kdcli.compression.targets import measure
from kdcli.errors import UsageError
from kdcli.progress import Listener, Note

FEW = 256  # states on which sizes are compared and timed


def fit(
    trainer: CandidateTrainer, architectures: Sequence[Architecture], targets: Sequence[Target]
) -> list[Architecture]:
    """The rungs that meet every target, measured on untrained students, timed in turns.

    Raises:
        UsageError: none does.
    """
    found = measure(
        {architecture.student: trainer.untrained(architecture) for architecture in architectures},
        targets,
        trainer.states(FEW),
        trainer.listener,
    )
    fitting = [architecture for architecture in architectures if all(one.holds for one in found[architecture.student])]
    if not fitting:
        _refuse(architectures[0], found[architectures[0].student])
    largest = fitting[-1]
    told = ", ".join(f"{one.target} ({one.value:,.4g})" for one in found[largest.student])
    trainer.listener(
        Note(f"{len(fitting)} of {len(architectures)} sizes fit; the largest is {largest.student}: {told}")
    )
    return fitting


def _refuse(smallest: Architecture, found: Sequence[Met]) -> None:
    missed = next((one for one in found if not one.holds), None)
    if missed is None:
        what = "no student meets all targets"
        raise UsageError(what, f"the smallest, {smallest.student}, does, but for noise", "set a looser one")
    raise UsageError(
        f"no student meets {missed.target}",
        f"the smallest, {smallest.student} of {smallest.n_params:,} parameters, has {missed.value:,.4g}",
        "set a looser target, or name another runtime: kdcli list runtimes",
    )


def measure_twice(agent: Agent, targets: Sequence[Target], states: States, listener: Listener) -> list[Met]:
    """What the targets come to; measured once more where one that is about time is missed."""
    found = measure({agent.name: agent}, targets, states, listener)[agent.name]
    if any(target.is_timed and not one.holds for target, one in zip(targets, found, strict=True)):
        listener(Note("a target was missed on a latency: measuring once more"))
        return measure({agent.name: agent}, targets, states, listener)[agent.name]
    return found
