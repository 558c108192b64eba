"""What a teacher leaves in a dataset, and how it is read back: columns of arrays to heads and again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Acts, Teaches, teaches
from kdcli.agents.heads import Heads
from kdcli.agents.memory import Memory, Turn

# `greedy` is the env-ready deterministic action; `Heads.action` and `Heads.choice` follow from it.
COLUMNS = ("logits", "q", "mean", "log_std", "value", "greedy")

Labels = dict[str, np.ndarray]


def label(teacher: Acts, obs: np.ndarray) -> Labels:
    """The signals of a teacher without memory on raw observations (B, *shape): column -> (B, ...).

    A black box gives `greedy` alone.
    """
    if not teaches(teacher):
        return {"greedy": teacher.act(obs)}
    return _labels(teacher, teacher.heads(obs))


def label_step(teacher: Acts, obs: np.ndarray, state: np.ndarray) -> tuple[Labels, np.ndarray]:
    """As `label`, for any teacher: with the states before (B, S); returns those after, too."""
    if not teaches(teacher):
        greedy, after = teacher.step(obs, state)
        return {"greedy": greedy}, after
    heads = teacher.heads(obs, state)
    return _labels(teacher, heads), state if heads.state is None else heads.state.numpy()


def label_turn(memory: Memory, turn: Turn) -> Labels:
    """The signals of a teacher that watches episodes side by side, and remembers them where it has memory."""
    if not memory.agent.state_size:
        return label(memory.agent, turn.obs)
    labels, after = label_step(memory.agent, turn.obs, memory.recall(turn))
    memory.keep(turn, after)
    return labels


def _labels(teacher: Teaches, heads: Heads) -> Labels:
    found = {name: t.numpy() for name, t in heads.present().items() if name in COLUMNS}
    return {**found, "greedy": teacher.decode(heads)}


def teaching_heads(columns: Mapping[str, Tensor], rule: ActionRule) -> Heads:
    """Columns of `label` as heads; `rule` is the action rule that student and teacher share."""
    signals = {name: t.float() for name, t in columns.items() if name in COLUMNS and name != "greedy"}
    if "value" in signals:
        signals["value"] = signals["value"].reshape(-1)
    return rule.taught(columns["greedy"]).having(signals)
