"""Teachers for the toy environments, written down rather than trained."""

from __future__ import annotations

import torch

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy, Spread
from kdcli.envs.make import make, to_space
from kdcli.networks.mlp import MLP
from kdcli.spec import EnvSpec

REACH, CHOOSE = EnvSpec("kdcli/Reach-v0"), EnvSpec("kdcli/Choose-v0")


def _wide(weight: torch.Tensor, width: int) -> MLP:
    """A ReLU network (F -> A) with one hidden layer that computes `weight` (A, F) exactly: w relu(x) - w relu(-x)."""
    outputs, inputs = weight.shape
    network = MLP(inputs, (width,), outputs, "relu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.linears()[0].weight[: 2 * inputs] = torch.cat([torch.eye(inputs), -torch.eye(inputs)])
        network.head.weight[:, : 2 * inputs] = torch.cat([weight, -weight], 1)
    return network


def _agent(spec: EnvSpec, weight: torch.Tensor, name: str, width: int) -> Agent:
    env = make(spec)
    observation, action = to_space(env.observation_space), to_space(env.action_space)
    rule = ActionRule(action)
    signal = "mean" if rule.continuous else "logits"
    spread = Spread("constant", torch.full((1,), -1.0)) if rule.continuous else None
    policy = Policy(_wide(weight, width), rule, signal, spread)  # type: ignore[arg-type]
    return Agent(Preprocess(observation), policy.eval().requires_grad_(False), name, spec)


def reach_teacher(width: int = 64) -> Agent:
    """Plays kdcli/Reach-v0 well: force -(3 x + 3 v)."""
    return _agent(REACH, torch.tensor([[-3.0, -3.0]]), "reach", width)


def choose_teacher(width: int = 64) -> Agent:
    """Plays kdcli/Choose-v0 perfectly: the largest signal."""
    return _agent(CHOOSE, 5.0 * torch.eye(3), "choose", width)
