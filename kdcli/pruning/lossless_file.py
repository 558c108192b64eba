"""The step of this room: an agent in, a thinner agent's file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.lossless import Proved, proved
from kdcli.pruning.states import real_states


def lossless_to(
    output: Path, agent: Agent, parents: Sequence[Mapping[str, str]], config: PruneConfig, force: bool = False
) -> Proved:
    """Write the agent without what never matters.

    Raises:
        UsageError: no env, or the output exists (without `force`).
        RefusedError: actions change in states of other episodes.
    """
    artifact.refuse_existing(output, force)
    done = proved(agent, lambda seed: real_states(agent, config.states, config.seed + seed))
    record = {
        "command": "prune",
        "config": config.model_dump(mode="json"),
        "alike": asdict(done.alike),
        "n_seen": done.n_seen,
        "left_out": list(done.left_out),
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
        "parents": [dict(parent) for parent in parents],
    }
    store.save(output, done.agent, record, force)
    return done
