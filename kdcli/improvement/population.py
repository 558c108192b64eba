"""Many sets of weights of one network, played side by side on the same initial states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.agents.agent import Agent
from kdcli.agents.memory import Turn
from kdcli.envs.vector import Vector
from kdcli.networks.activations import activation
from kdcli.networks.mlp import MLP
from kdcli.rollouts.step_loop import stream


class Population:
    """An agent whose network, an MLP, plays under many sets of weights; normalizer and action rule stay as they are.

    A set is one vector (P,): weight, then bias, of every layer from input to output.
    """

    def __init__(self, agent: Agent) -> None:
        network = agent.policy.network
        assert isinstance(network, MLP)
        self.agent, self._layers = agent, network.linears()
        self._rows = _Rows(network)
        policy = copy.deepcopy(agent.policy)
        policy.network = self._rows  # type: ignore[assignment]  # it takes the place of forward alone
        self._player = replace(agent, policy=policy)

    @property
    def weights(self) -> np.ndarray:
        """The agent's own weights (P,), float64."""
        return torch.cat([p.detach().flatten() for p in self._parameters(self._layers)]).double().numpy()

    @staticmethod
    def _parameters(layers: Sequence[nn.Linear]) -> list[Tensor]:
        return [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]

    def agent_of(self, weights: np.ndarray) -> Agent:
        """The agent with these weights (P,)."""
        policy = copy.deepcopy(self.agent.policy)
        assert isinstance(policy.network, MLP)
        parameters = self._parameters(policy.network.linears())
        parts = torch.from_numpy(weights).float().split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))
        return replace(self.agent, policy=policy)

    @torch.inference_mode()
    def returns(self, weights: np.ndarray, vector: Vector, seeds: Sequence[int]) -> np.ndarray:
        """Undiscounted returns (K, E) of weights (K, P) from the initial states of E `seeds`, played deterministically.

        All K play the same episodes, so that what differs is what they do.
        """
        sets = torch.from_numpy(weights).float()
        returns, playing = np.zeros(len(weights) * len(seeds)), np.zeros(0, np.int64)

        def act(turn: Turn) -> np.ndarray:
            nonlocal playing
            assert turn.episode is not None
            if not np.array_equal(playing, turn.episode):  # only where an episode began or ended
                playing = turn.episode
                self._rows.take(sets[torch.from_numpy(playing // len(seeds))])
            return self._player.act(turn.obs)

        for steps in stream(vector, [*seeds] * len(weights), act):
            returns[steps.episode] += steps.reward
        return returns.reshape(len(weights), len(seeds))


class _Rows(nn.Module):
    """An MLP that sees every row of a batch with weights of the row's own."""

    state_size = 0

    def __init__(self, network: MLP) -> None:
        super().__init__()
        self._shapes = [(layer.out_features, layer.in_features, layer.bias is not None) for layer in network.linears()]
        self._activation = activation(network.activation_name)
        self._layers: list[tuple[Tensor, Tensor | None]] = []

    def take(self, sets: Tensor) -> None:
        """Set the weights (b, P) of the rows to come."""
        self._layers, at = [], 0
        for n, m, biased in self._shapes:
            weight = sets[:, at : at + n * m].reshape(-1, n, m).transpose(1, 2).contiguous()
            at += n * m
            self._layers.append((weight, sets[:, None, at : at + n].contiguous() if biased else None))
            at += n * biased

    def forward(self, features: Tensor) -> Tensor:
        """(b, inputs) -> (b, outputs)."""
        hidden = features[:, None]
        for index, (weight, bias) in enumerate(self._layers):
            hidden = hidden if index == 0 else self._activation(hidden)
            hidden = torch.bmm(hidden, weight) if bias is None else torch.baddbmm(bias, hidden, weight)
        return hidden[:, 0]
