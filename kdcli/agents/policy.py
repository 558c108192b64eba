"""A network read as a policy: features in, heads out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.networks.mlp import MLP

Signal = Literal["logits", "q", "mean"]


class Spread(nn.Module):
    """The log standard deviation of a Gaussian policy, in the three forms Stable-Baselines3 stores.

    constant: `weight` (A,), the same for all states. linear: `weight` (A, latent) and `bias` (A,), clamped to [-20, 2]
    (SAC). gsde: `weight` (latent, A), variance = latent^2 @ std^2 (Raffin et al. 2021, section 3.2).
    """

    weight: Tensor
    bias: Tensor | None

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
    return, averaged to Q-values (Dabney et al. 2018, eq. 2). `value` is a critic of states, a network of its own or one
    layer on the trunk: a teaching signal, not part of the deployed actor.
    """

    def __init__(
        self,
        network: MLP,
        rule: ActionRule,
        signal: Signal,
        spread: Spread | None = None,
        value: MLP | nn.Linear | None = None,
        quantiles: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.rule, self.signal = network, rule, signal
        self.spread, self.value, self.quantiles = spread, value, quantiles

    def outputs(self, features: Tensor) -> Tensor:
        """What the action rule reads, (B, F) -> (B, P): logits, Q-values or the mean."""
        return self._pooled(self.network.forward(features))

    def _pooled(self, out: Tensor) -> Tensor:
        return out.view(len(out), self.quantiles, -1).mean(1) if self.quantiles else out

    def forward(self, features: Tensor) -> Heads:
        """Every signal the policy has."""
        latent = self.network.latent(features)
        out = self._pooled(self.network.output(latent))
        value = self._value(features, latent)
        if self.signal != "mean":
            return Heads(**{self.signal: out}, value=value, groups=self.rule.groups, bits=self.rule.bits)
        log_std = self.spread(latent, out) if self.spread is not None else None
        return Heads(mean=out, log_std=log_std, action=self.rule.unit(out), value=value)

    def _value(self, features: Tensor, latent: Tensor) -> Tensor | None:
        if self.value is None:
            return None
        return self.value(latent if isinstance(self.value, nn.Linear) else features).squeeze(1)

    @property
    def n_params(self) -> int:
        """Weights and biases of the network that acts, nothing else."""
        return sum(p.numel() for p in self.network.parameters())
