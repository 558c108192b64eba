"""What is known when units are judged: an agent in the form for surgery, real states, what its units say there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.networks.cached import cached_tensor
from kdcli.networks.dependency_graph import DependencyGraph, dependency_graph
from kdcli.networks.stack import Stack
from kdcli.pruning.activation_stats import Seen, by_entry, listening, run, watch
from kdcli.pruning.slicing import keep
from kdcli.pruning.surgery import Tensors, as_stack, like, tensors_of, with_network


@dataclass(frozen=True, eq=False)
class UnitStats:
    """The agent on `states`; `before` is the same agent before it was trained, where that is known."""

    given: Agent
    states: States
    before: Agent | None = None

    @cached_tensor
    def agent(self) -> Agent:
        """The agent with a stack for its network."""
        return with_network(self.given, self.stack)

    @cached_tensor
    def stack(self) -> Stack:
        """The network as a stack of layers."""
        return as_stack(self.given.policy.network)

    @cached_property
    def body(self) -> DependencyGraph:
        """Which units depend on which."""
        return dependency_graph(self.stack)

    @cached_tensor
    def tensors(self) -> Tensors:
        """The parameters by name."""
        return tensors_of(self.stack)

    @cached_tensor
    def seen(self) -> list[Seen]:
        """What each reader reads on the states."""
        return watch(self.agent, self.body.readers, self.states)

    @cached_tensor
    def means(self) -> list[Tensor]:
        """What each unit says in the mean to each reader, (entries,)."""
        return [seen.entry_mean for seen in self.seen]

    @cached_tensor
    def scores(self) -> Tensor:
        """The agent's outputs (N, P) on the states."""
        return self._scores()

    @torch.no_grad()
    def _scores(self) -> Tensor:
        return torch.cat([heads.scores() for heads in run(self.agent, self.states)])

    def without(self, unit: int) -> Tensor:
        """The outputs (N, P) with one unit at its mean."""
        rows = [torch.from_numpy(np.flatnonzero(reader.owner == unit)) for reader in self.body.readers]
        means = self.means  # watched before anything else listens

        def hear(index: int, x: Tensor) -> Tensor | None:
            if not len(rows[index]):
                return None
            other = x.clone(memory_format=torch.contiguous_format)
            by_entry(other)[:, rows[index]] = means[index][rows[index], None].float()
            return other

        with listening(self.agent, self.body.readers, hear):
            return self._scores()

    def kept(self, gone: Sequence[int]) -> Agent:
        """The agent without these units; what they said in the mean is in the biases behind."""
        if not gone:
            return self.given
        stays = self.body.everything()
        stays[list(gone)] = False
        thin = keep(self.stack, stays, self.means)
        return with_network(self.given, like(thin, self.given.policy.network))
