"""Mixed precision: fewer bits where they cost least, measured as disagreement along the agent's own play.

A matrix on few levels moves actions, and with them the states that come next: what counts is how much an agent with
this one matrix on few levels does otherwise than its floats where it goes itself, not the error of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kdcli.agents.agent import Agent
from kdcli.agents.agreement import agreement
from kdcli.agents.states import States, actions
from kdcli.errors import UsageError, option
from kdcli.quantization.plan import Plan
from kdcli.quantization.qat import products
from kdcli.quantization.schemes import Scheme, parse_scheme

# An agent's own play: what it observes where it goes.
Play = Callable[[Agent], States]
LADDER = ("int8", "int4", "int3", "int2")


@dataclass(frozen=True)
class Step:
    """A parameter of `size` numbers on one scheme alone, and the disagreement that this costs; 0 is none."""

    name: str
    scheme: Scheme
    size: int
    disagreement: float


def disagreement(agent: Agent, other: Agent, play: Play) -> float:
    """1 - agreement of the two where `other` goes by itself."""
    states = play(other)
    return 1.0 - agreement(actions(other, states), actions(agent, states), agent.action)


def sensitivities(agent: Agent, schemes: Sequence[str], play: Play) -> list[Step]:
    """Each matrix on each scheme, alone."""
    found = []
    for name, module, key in products(agent.policy.network):
        weight = getattr(module, key).detach().numpy()
        for scheme in map(parse_scheme, schemes):
            alone = agent.packed({name: scheme.pack(weight)})
            found.append(Step(name, scheme, weight.size, disagreement(agent, alone, play)))
    return found


def mixed(agent: Agent, plan: Plan, bits: float, play: Play, ladder: Sequence[str] = LADDER) -> Plan:
    """The plan with a scheme for each matrix, of at most `bits` a weight in the mean.

    All begin on the first scheme of the ladder; what costs the least disagreement for each bit saved goes one step
    down, until the mean is reached.

    Raises:
        UsageError: fewer bits than the last scheme has.
    """
    schemes = [parse_scheme(text) for text in ladder]
    if bits < schemes[-1].bits:
        raise UsageError(
            f"no mixture has {bits:g} bits a weight",
            f"the least is {schemes[-1].bits}",
            f"{option('mixed', schemes[-1].bits)} is the least",
        )
    steps = sensitivities(agent, ladder, play)
    cost = {(step.name, step.scheme.name): step.disagreement for step in steps}
    sizes = {step.name: step.size for step in steps}
    at = dict.fromkeys(sizes, 0)
    while _mean(at, sizes, schemes) > bits:
        movable = [name for name in at if at[name] + 1 < len(schemes)]
        name = min(movable, key=lambda name: _price(name, at[name], schemes, cost, sizes))
        at[name] += 1
    return replace(plan, by_name={name: schemes[place] for name, place in at.items()})


def _mean(at: Mapping[str, int], sizes: Mapping[str, int], schemes: Sequence[Scheme]) -> float:
    """Bits a weight."""
    return sum(sizes[name] * schemes[place].bits for name, place in at.items()) / sum(sizes.values())


def _price(
    name: str, place: int, schemes: Sequence[Scheme], cost: Mapping[tuple[str, str], float], sizes: Mapping[str, int]
) -> float:
    """Disagreement added for each bit saved by one step down."""
    before, after = schemes[place], schemes[place + 1]
    saved = sizes[name] * (before.bits - after.bits)
    return max(0.0, cost[name, after.name] - cost[name, before.name]) / saved
