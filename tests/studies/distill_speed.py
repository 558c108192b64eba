"""How much of a distillation step is not the bare torch loop: ratios within one run, interleaved.

    python tests/studies/distill_speed.py [student] [batch] [range of the teacher's actions]

With a range of 1 the teacher touches the bounds of its actions in a few states, as trained ones do, which costs a mask;
with 0.9 it does not.

Bare: the same network, batch and fused Adam on the same tensors, batches cut from one shuffled copy an epoch, the
loss written out. Measured in turns, in processor time of the one thread; the ratio is bare time over ours, 1 would be
no overhead.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import Learner
from kdcli.distillation.objective import Objective
from kdcli.networks import build
from kdcli.networks.mlp import MLP
from kdcli.spec import box

INPUTS, ACTIONS, ROWS = 17, 6, 50_000


def bare(network: torch.nn.Module, features: torch.Tensor, target: torch.Tensor, batch: int, n: int) -> float:
    """Seconds for `n` steps of the plainest loop."""
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    begin, done = time.process_time(), 0
    while done < n:
        order = torch.randperm(len(features))
        x, y = features[order], target[order]
        for start in range(0, len(x) - batch + 1, batch):
            loss = (network(x[start : start + batch]) - y[start : start + batch]).square().mean()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            done += 1
            if done == n:
                break
    return time.process_time() - begin


def plain(network: MLP) -> torch.nn.Sequential:
    """The same network as one writes it in torch."""
    layers = [layer for linear in network.linears()[:-1] for layer in (copy.deepcopy(linear), torch.nn.Tanh())]
    return torch.nn.Sequential(*layers, copy.deepcopy(network.head))


def main(student: str = "mlp:32x32", batch: int = 256, reach: float = 1.0, n: int = 2000, turns: int = 9) -> float:
    """Print and return the median ratio."""
    torch.set_num_threads(1)
    rule, preprocess = ActionRule(box((ACTIONS,), -1, 1)), Preprocess(box((INPUTS,)))
    network = build(Choice.parse(student), [(INPUTS,)], ACTIONS, 0)
    buffer = Buffer(preprocess, rule, ROWS)
    obs = torch.randn(ROWS, INPUTS)
    greedy = reach * torch.tanh(obs @ torch.randn(INPUTS, ACTIONS))
    buffer.add(obs.numpy(), {"greedy": greedy.numpy(), "mean": greedy.numpy()})
    agent = Agent(preprocess, Policy(network, rule, "mean"))
    learner = Learner(agent, Objective.parse(["action"]), DistillConfig(batch=batch))
    twin = plain(network)
    ratios = []
    for turn in range(turns + 1):
        begin = time.process_time()
        learner.train(buffer, n)
        ours = time.process_time() - begin
        theirs = bare(twin, obs, greedy, batch, n)
        if turn:
            ratios.append(theirs / ours)
            print(f"bare {1e6 * theirs / n:.0f} us, ours {1e6 * ours / n:.0f} us a step: {theirs / ours:.3f}")
    median = statistics.median(ratios)
    print(f"{student}, batch {batch}, actions to {reach:g}: median {median:.3f} of the bare loop's speed")
    return median


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]), *map(float, sys.argv[3:4]))
