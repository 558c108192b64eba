"""What a teacher leaves in a dataset, and how it is read back: columns of arrays to heads and again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Acts, Agent
from kdcli.agents.heads import Heads

# `greedy` is the env-ready deterministic action; `Heads.action` and `Heads.choice` follow from it.
COLUMNS = ("logits", "q", "mean", "log_std", "value", "greedy")


@torch.inference_mode()
def label(teacher: Acts, obs: np.ndarray) -> dict[str, np.ndarray]:
    """The teacher's signals on raw observations (B, *shape): column -> (B, ...). A black box gives `greedy` alone."""
    if not isinstance(teacher, Agent):
        return {"greedy": teacher.act(obs)}
    heads, rule = teacher.heads(obs), teacher.policy.rule
    outputs = next(t for t in (heads.logits, heads.q, heads.mean) if t is not None)
    found = {name: t.numpy() for name, t in heads.present().items() if name in COLUMNS}
    return {**found, "greedy": rule.decode(outputs).numpy().astype(teacher.action.dtype, copy=False)}


def teaching_heads(columns: Mapping[str, Tensor], rule: ActionRule) -> Heads:
    """Columns of `label` as heads; `rule` is the action rule that student and teacher share."""
    signals = {name: t.float() for name, t in columns.items() if name in COLUMNS and name != "greedy"}
    if "value" in signals:
        signals["value"] = signals["value"].reshape(-1)
    return rule.taught(columns["greedy"]).having(signals)
