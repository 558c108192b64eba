"""What a teacher leaves in a dataset, and how it is read back: columns of arrays to heads and again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.actor import Actor, LabelingActor, teaches
from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.memory import Memory, Turn
from kdcli.errors import UsageError, option

# `greedy` is the env-ready deterministic action; `Heads.action` and `Heads.choice` follow from it.
COLUMNS = ("logits", "q", "mean", "log_std", "value", "greedy")
# What goes on inside a teacher, given only where a loss asks for it, by the name of the head and of its column.
INSIDE = {
    "features": "features",
    "attention": "attention",
    "state": "after",
    "members": "members",
    "shares": "shares",
}

Labels = dict[str, np.ndarray]


def label(teacher: Actor, obs: np.ndarray, inside: Collection[str] = ()) -> Labels:
    """The signals of a teacher without memory on raw observations (B, *shape): column -> (B, ...).

    A black box gives `greedy` alone. `inside` names heads of INSIDE that are wanted, too.

    Raises:
        UsageError: the teacher has no such thing inside.
    """
    if not teaches(teacher):
        return {"greedy": teacher.act(obs), **_looked_into(teacher, obs, Heads(), inside)}
    return _labels(teacher, obs, teacher.heads(obs), inside)


def label_step(
    teacher: Actor, obs: np.ndarray, state: np.ndarray, inside: Collection[str] = ()
) -> tuple[Labels, np.ndarray]:
    """As `label`, for any teacher: with the states before (B, S); returns those after, too."""
    if not teaches(teacher):
        greedy, after = teacher.step(obs, state)
        return {"greedy": greedy, **_looked_into(teacher, obs, Heads(), inside)}, after
    heads = teacher.heads(obs, state)
    return _labels(teacher, obs, heads, inside), state if heads.state is None else heads.state.numpy()


def label_turn(memory: Memory, turn: Turn, inside: Collection[str] = ()) -> Labels:
    """The signals of a teacher that watches episodes side by side, and remembers them where it has memory."""
    if not memory.agent.state_size:
        return label(memory.agent, turn.obs, inside)
    labels, after = label_step(memory.agent, turn.obs, memory.recall(turn), inside)
    memory.keep(turn, after)
    return labels


def _labels(teacher: LabelingActor, obs: np.ndarray, heads: Heads, inside: Collection[str]) -> Labels:
    found = {name: t.numpy() for name, t in heads.present().items() if name in COLUMNS}
    return {**found, **_looked_into(teacher, obs, heads, inside), "greedy": teacher.decode(heads)}


def _looked_into(teacher: Actor, obs: np.ndarray, heads: Heads, inside: Collection[str]) -> Labels:
    found: Labels = {}
    for name in inside:
        seen: Tensor | None = getattr(heads, name)
        if name == "attention" and isinstance(teacher, Agent):
            seen = teacher.attention(obs)
        if seen is None:
            why = f"{teacher.name} gives {', '.join(heads.present()) or 'its action'}"
            raise UsageError(
                f"this loss needs the teacher's {name}", why, f"leave {option('loss')} out, for one that fits"
            )
        found[INSIDE[name]] = seen.numpy()
    return found


def teaching_heads(columns: Mapping[str, Tensor], rule: ActionRule) -> Heads:
    """Columns of `label` as heads; `rule` is the action rule that student and teacher share."""
    signals = {name: t.float() for name, t in columns.items() if name in COLUMNS and name != "greedy"}
    signals |= {name: columns[column].float() for name, column in INSIDE.items() if column in columns}
    if "value" in signals:
        signals["value"] = signals["value"].reshape(-1)
    return rule.taught(columns["greedy"]).having(signals)
