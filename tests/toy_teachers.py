"""Teachers for the toy environments, written down rather than trained."""

from __future__ import annotations

import torch

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy, Spread
from kdcli.choice import Choice
from kdcli.envs.make import make, to_space
from kdcli.networks import build
from kdcli.networks.mlp import MLP
from kdcli.spec import EnvSpec

REACH, CHOOSE, REMEMBER = (EnvSpec(f"kdcli/{name}-v0") for name in ("Reach", "Choose", "Remember"))


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


def remember_teacher(width: int = 32) -> Agent:
    """Plays kdcli/Remember-v0 perfectly: the first cell takes the signal where it is shown, and keeps it."""
    env = make(REMEMBER)
    observation, rule = to_space(env.observation_space), ActionRule(to_space(env.action_space))  # type: ignore[arg-type]
    network = build(Choice.parse(f"gru:{width}"), [(2,)], 2, 0)
    (cell,) = network.trunk
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter[::width] = 0.0  # reset, update and new value of the first cell
        cell.bias_ih[width], cell.weight_ih[width, 1], cell.weight_ih[2 * width, 0] = 20.0, -40.0, 5.0
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.weight[:, 0] = torch.tensor([-5.0, 5.0])
    policy = Policy(network, rule, "logits").eval().requires_grad_(False)
    return Agent(Preprocess(observation), policy, "remember", REMEMBER)  # type: ignore[arg-type]
