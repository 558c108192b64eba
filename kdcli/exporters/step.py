"""An agent to a file: trace, write, compare, and only then let the file appear."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.agents.folding import can_fold, fold
from kdcli.agents.runtime import OnnxAgent, from_bytes
from kdcli.agents.store import describe
from kdcli.errors import RefusedError
from kdcli.exporters import EXPORTERS
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.onnx import stamp
from kdcli.exporters.parity import Parity, States, check
from kdcli.exporters.states import gather
from kdcli.graph.trace import trace

Parents = Sequence[Mapping[str, str]]

_DESCRIBED = ("name", "observation", "action", "env", "facts", "image", "network", "signal")


@dataclass(frozen=True, eq=False)
class Exported:
    """A checked file that is not yet written: its bytes, how alike it acts, and the agent that it is."""

    data: bytes
    parity: Parity
    agent: OnnxAgent

    def save(self, path: Path, force: bool = False) -> Path:
        """Write the file atomically."""
        return artifact.write_bytes(path, self.data, force)

    def summary(self) -> dict[str, Any]:
        """What there is to say of it, as JSON values."""
        made = self.agent
        return {
            "outputs": made.outputs,
            "size_bytes": made.size_bytes,
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "n_params": made.n_params,
            "n_constants": made.n_constants,
            "multiply_adds": made.multiply_adds,
            "parity": self.parity.to_json(),
        }


def convert(agent: Agent, states: States | None, config: ExportConfig, parents: Parents = ()) -> Exported:
    """The agent as the bytes of a file that acts as it does on `states`; without states, on those it plays into.

    `parents` are the files it was made from (`artifact.parent`).

    Raises:
        UsageError: an output the agent does not have, an opset that is not known, states of the wrong shape.
        RefusedError: the file would not act like the agent.
    """
    states = gather(agent, config.states, config.seed) if states is None else states
    plain, parity, folded = _written(agent, states, config)
    record = {**_record(agent, config, parity, parents), "normalizer": _normalizer(agent, folded)}
    data = stamp(plain, record)
    return Exported(data, parity, from_bytes(data, agent.name))


def _written(agent: Agent, states: States, config: ExportConfig) -> tuple[bytes, Parity, bool]:
    """The bytes, checked, and whether the normalizer is folded: it is where that changes no action."""
    write = EXPORTERS.load(config.format)
    if can_fold(agent):
        plain = write(trace(fold(agent), config.outputs), config)
        with suppress(RefusedError):
            return plain, check(plain, agent, states), True
    plain = write(trace(agent, config.outputs), config)
    return plain, check(plain, agent, states), False


def _normalizer(agent: Agent, folded: bool) -> str | None:
    if agent.preprocess.normalizer is None:
        return None
    return "folded" if folded else "inside"


def export(agent: Agent, path: Path, states: States | None, config: ExportConfig, force: bool = False) -> Exported:
    """`convert`, and the file at `path`.

    Raises:
        UsageError: as `convert`; the file exists (without `force`) or cannot be written.
        RefusedError: as `convert`; nothing is written.
    """
    artifact.refuse_existing(path, force)
    exported = convert(agent, states, config)
    exported.save(path, force)
    return exported


def _record(agent: Agent, config: ExportConfig, parity: Parity, parents: Parents) -> dict[str, Any]:
    """What the file says of itself: all that is needed to use it, and where it came from; no path, no time."""
    described, policy = describe(agent), agent.policy
    return {
        **{key: described[key] for key in _DESCRIBED},
        "rule": {"squash": policy.rule.squash, "limit": policy.rule.limit},
        "sampled_by": _sampled_by(agent),
        "config": config.model_dump(mode="json"),
        "parity": parity.to_json(),
        "parents": [dict(parent) for parent in parents],
        "versions": artifact.versions("torch", "onnx", "onnxruntime"),
    }


def _sampled_by(agent: Agent) -> list[str]:
    """The outputs that its distribution consists of; none for a policy that is always greedy."""
    if agent.policy.signal == "logits":
        return ["logits"]
    return ["mean", "log_std"] if agent.policy.spread is not None else []
