"""What a student says of a batch: state by state, or along windows of episodes where it has memory."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.agents.policy import Policy
from kdcli.distillation.buffer import Batch

# The first steps of a window only bring the state about: what the zeros at its beginning stand for is not known
# (Kapturowski et al. 2019, section 3).
BURN_IN = 0.25


def both(policy: Policy, batch: Batch, inside: Collection[str] = ()) -> tuple[Heads, Heads]:
    """The student's heads and the teacher's, of the same N states."""
    if batch.begins is None:
        return _heads(policy, batch.features, None, inside), batch.teacher
    size = len(batch.features) // batch.length
    first = int(BURN_IN * batch.length) * size
    said = _along(policy, batch, size, inside)
    return _cut(_joined(said), first), _cut(batch.teacher, first)


def _along(policy: Policy, batch: Batch, size: int, inside: Collection[str]) -> list[Heads]:
    """The heads of each step."""
    assert batch.begins is not None
    state = batch.features.new_zeros((size, policy.state_size))
    said = []
    for features, begins in zip(batch.features.split(size), batch.begins.split(size), strict=True):
        state = torch.where(begins[:, None], 0.0, state)
        said.append(_heads(policy, features, state, inside))
        assert said[-1].state is not None
        state = said[-1].state
    return said


def _heads(policy: Policy, features: Tensor, state: Tensor | None, inside: Collection[str]) -> Heads:
    heads = policy.forward(features, state)
    return heads.having({"attention": policy.attention(features)}) if "attention" in inside else heads


def _joined(said: list[Heads]) -> Heads:
    """Heads of T steps of b windows as heads of T * b states."""
    parts = [heads.present() for heads in said]
    return said[0].having({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _cut(heads: Heads, first: int) -> Heads:
    return heads.having({name: tensor[first:] for name, tensor in heads.present().items()}) if first else heads
