"""What units say on real states: watched at the products that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.states import States
from kdcli.networks.dependency_graph import Reader
from kdcli.networks.stack import Stack

_BATCH = 256
Hear = Callable[[int, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class Seen:
    """Of what one reader reads: the smallest, the largest, mean and variance of each entry, (entries, places).

    An entry of a convolution's input is a channel, seen at H W places; other entries have one place.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def entry_mean(self) -> Tensor:
        """The mean of each entry over its places, (entries,)."""
        return self.mean.mean(1)


class _Tally:
    """Running sums of one reader's input."""

    def __init__(self) -> None:
        self.n = 0
        self.low = self.high = self.total = self.squares = torch.zeros(0)

    def add(self, x: Tensor) -> None:
        """One batch (B, entries, places)."""
        x = x.double()
        found = x.amin(0), x.amax(0), x.sum(0), x.square().sum(0)
        if self.n:
            found = (
                torch.minimum(self.low, found[0]),
                torch.maximum(self.high, found[1]),
                self.total + found[2],
                self.squares + found[3],
            )
        self.low, self.high, self.total, self.squares = found
        self.n += len(x)

    def seen(self) -> Seen:
        mean = self.total / self.n
        return Seen(self.low, self.high, mean, (self.squares / self.n - mean.square()).clamp(min=0.0))


def by_entry(x: Tensor) -> Tensor:
    """What a reader reads (B, F), (B, C, H, W) or rows (B, N, D) as (B, entries, places)."""
    if x.ndim == 3:
        return x.transpose(1, 2)
    return x.flatten(2) if x.ndim > 2 else x[:, :, None]


def watch(agent: Agent, readers: Sequence[Reader], states: States) -> list[Seen]:
    """What each reader of the agent's stack reads on the states; memory goes through the episodes."""
    tallies = [_Tally() for _ in readers]

    def hear(index: int, x: Tensor) -> None:
        tallies[index].add(by_entry(x))

    with torch.no_grad(), listening(agent, readers, hear):
        for _ in run(agent, states):
            pass
    return [tally.seen() for tally in tallies]


def run(agent: Agent, states: States, batch: int = _BATCH) -> Iterator[Heads]:
    """What the policy says, batch by batch; with memory, turn by turn."""
    if not agent.state_size:
        for start in range(0, len(states), batch):
            yield agent.policy.forward(agent.preprocess(states.observations[start : start + batch]))
        return
    state = torch.zeros(states.slots, agent.state_size)
    for obs, begins in zip(*states.turns(), strict=True):
        state = state * torch.from_numpy(~begins)[:, None]
        heads = agent.policy.forward(agent.preprocess(obs), state)
        assert heads.state is not None
        state = heads.state.detach()
        yield heads


@contextmanager
def listening(agent: Agent, readers: Sequence[Reader], hear: Hear) -> Iterator[None]:
    """Let `hear` know what each reader (by its index) reads; where it gives a tensor, that is read instead."""
    stack = agent.policy.network
    assert isinstance(stack, Stack)
    handles = [
        stack.get_submodule(reader.module).register_forward_pre_hook(_hook(index, reader, hear))
        for index, reader in enumerate(readers)
        if reader.module != "head"
    ]
    # The head is applied by a function, not called.
    original = stack.output
    head = next(index for index, reader in enumerate(readers) if reader.module == "head")

    def output(latent: Tensor) -> Tensor:
        other = hear(head, latent)
        return original(latent if other is None else other)

    stack.output = output  # type: ignore[method-assign]
    try:
        yield
    finally:
        del stack.output
        for handle in handles:
            handle.remove()


def _hook(index: int, reader: Reader, hear: Hear) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...] | None]:
    """A cell's second argument is h, or h and c."""

    def before(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        given = arguments[reader.argument]
        pair = isinstance(given, tuple)
        other = hear(index, given[0] if pair else given)
        if other is None:
            return None
        changed = list(arguments)
        changed[reader.argument] = (other, *given[1:]) if pair else other
        return tuple(changed)

    return before
