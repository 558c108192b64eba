"""A network read as a policy: features in, heads out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.errors import UsageError
from kdcli.networks.mlp import MLP
from kdcli.networks.packed_weights import Packed
from kdcli.networks.stack import Stack

Network = MLP | Stack
Signal = Literal["logits", "q", "mean"]


class Spread(nn.Module):
    """The log standard deviation of a Gaussian policy, in the three forms Stable-Baselines3 stores.

    constant: `weight` (A,), the same for all states. linear: `weight` (A, latent) and `bias` (A,), clamped to [-20, 2]
    (SAC). gsde: `weight` (latent, A), variance = latent^2 @ std^2 (Raffin et al. 2021, section 3.2).
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def learned(cls, n: int, start: float = -1.0) -> Spread:
        """A constant one of `n` dimensions that training moves; it begins at `start`."""
        spread = cls("constant", torch.empty(0))
        del spread.weight
        spread.weight = nn.Parameter(torch.full((n,), start))
        return spread

    def __init__(self, kind: Literal["constant", "linear", "gsde"], weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, latent: Tensor, mean: Tensor) -> Tensor:
        """Latent (B, latent) and mean (B, A) -> log standard deviation (B, A)."""
        if self.kind == "constant":
            return self.weight.expand_as(mean)
        if self.kind == "linear":
            return nn.functional.linear(latent, self.weight, self.bias).clamp(-20.0, 2.0)
        return 0.5 * torch.log((latent**2) @ (self.weight.exp() ** 2) + 1e-6)


class Policy(nn.Module):
    """Features (B, F) -> `Heads`.

    `signal` names what the network's outputs are. `quantiles` > 0: the outputs are (quantiles, A) quantiles of the
    return, averaged to Q-values (Dabney et al. 2018, eq. 2). `atoms` (N,): they are (A, N) logits over these returns,
    whose expectations are the Q-values (Bellemare et al. 2017, section 4). `value` is a critic of states, a network of
    its own or one layer on the trunk: a teaching signal, not part of the deployed actor. Where networks remember, the
    state (B, S) is the actor's, then the critic's; zeros begin an episode. `critics` of continuous actions, networks
    over the features and the action in units of its bounds, say the value where there is no critic of states: the least
    of what they say, or of distributions of returns (several outputs) the mean of all. `packing` names the parameters
    whose values lie on few levels and says which (see `agents.packing`).
    """

    atoms: Tensor | None
    packing: Mapping[str, Packed]

    def __init__(
        self,
        network: Network,
        rule: ActionRule,
        signal: Signal,
        spread: Spread | None = None,
        value: Network | nn.Linear | None = None,
        quantiles: int = 0,
        atoms: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network, self.rule, self.signal = network, rule, signal
        self.spread, self.value, self.quantiles = spread, value, quantiles
        self.register_buffer("atoms", atoms)
        self.critics = nn.ModuleList()
        self.packing = {}
        self.state_size = network.state_size + (value.state_size if isinstance(value, Stack) else 0)

    def outputs(self, features: Tensor) -> Tensor:
        """What the action rule reads, (B, F) -> (B, P): logits, Q-values or the mean; at an episode's beginning."""
        seen, mask = self._unmasked(features)
        return self._ready(self.network.forward(seen), mask)

    def forward(self, features: Tensor, state: Tensor | None = None) -> Heads:
        """Every signal the policy has; `state` (B, S) is that of a recurrent one, at first none."""
        seen, mask = self._unmasked(features)
        latent, value, after = self._thoughts(seen, state)
        out = self._ready(self.network.output(latent), mask)
        if self.signal != "mean":
            scores = {self.signal: out}
            about = {"value": value, "state": after, "features": latent}
            return Heads(**scores, **about, groups=self.rule.groups, bits=self.rule.bits)
        log_std = self.spread(latent, out) if self.spread is not None else None
        action = self.rule.unit(out)
        value = self._criticized(seen, action) if value is None and self.critics else value
        return Heads(mean=out, log_std=log_std, action=action, value=value, state=after, features=latent)

    def attention(self, features: Tensor) -> Tensor:
        """Features (B, F) -> where the last convolution is active, (B, h, w): the mean square over its channels.

        Zagoruyko and Komodakis 2017, section 3.1.

        Raises:
            UsageError: the network has no convolution.
        """
        maps = self.network.maps(self._unmasked(features)[0]) if isinstance(self.network, Stack) else None
        if maps is None:
            raise UsageError(
                f"{self.network} has no attention map", "it has no convolution", "leave --loss out, for one that fits"
            )
        return maps.square().mean(1)

    def _unmasked(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the network reads, and the mask."""
        n = self.rule.n_mask
        return (features[:, :-n], features[:, -n:]) if n else (features, None)

    def _ready(self, out: Tensor, mask: Tensor | None) -> Tensor:
        pooled = self._pooled(out)
        return pooled if mask is None else self.rule.allow(pooled, mask)

    def _pooled(self, out: Tensor) -> Tensor:
        """Outputs (B, P) whose distributions of returns have become Q-values."""
        if self.atoms is not None:
            return out.view(len(out), -1, len(self.atoms)).softmax(2) @ self.atoms
        return out.view(len(out), self.quantiles, -1).mean(1) if self.quantiles else out

    @property
    def n_pooled(self) -> int:
        """Outputs of the network that become one of those the action rule reads."""
        return max(1, self.quantiles) if self.atoms is None else len(self.atoms)

    def _thoughts(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The last hidden layer (B, H), the value (B,), and the next state (B, S)."""
        if not self.state_size:
            latent = self.network.latent(features)
            return latent, self._value(features, latent), None
        state = features.new_zeros((len(features), self.state_size)) if state is None else state
        actor, critic = state.split([self.network.state_size, self.state_size - self.network.state_size], 1)
        latent, actor = self._advance(self.network, features, actor)
        if not isinstance(self.value, Stack) or not self.value.state_size:
            return latent, self._value(features, latent), actor
        hidden, critic = self.value.advance(features, critic)
        return latent, self.value.output(hidden).squeeze(1), torch.cat([actor, critic], 1)

    @staticmethod
    def _advance(network: Network, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return network.advance(features, state) if isinstance(network, Stack) else (network.latent(features), state)

    def _value(self, features: Tensor, latent: Tensor) -> Tensor | None:
        if self.value is None:
            return None
        return self.value(latent if isinstance(self.value, nn.Linear) else features).squeeze(1)

    def _criticized(self, features: Tensor, action: Tensor) -> Tensor:
        """What the critics say of actions (B, A), in units of their bounds -> (B,)."""
        said = torch.cat([critic(torch.cat([features, action], 1)) for critic in self.critics], 1)
        return said.amin(1) if said.shape[1] == len(self.critics) else said.mean(1)

    @property
    def n_params(self) -> int:
        """Weights and biases of the network that acts, nothing else."""
        return sum(p.numel() for p in self.network.parameters())
