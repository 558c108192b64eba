"""`kdcli.load` and `kdcli.inspect`: a checkpoint as an agent, and what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.options import build
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.onnx.session import OnnxAgent


def load(
    agent: Any, output: Path | str | None = None, *, force: bool = False, progress: Listener = silent, **options: Any
) -> Agent | OnnxAgent:
    """Load an agent from a checkpoint, without running anything in it; with `output`, write it as an agent file.

    Args:
        agent: A path, or a Stable-Baselines3 model in memory.
        output: Where to write it as safetensors.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.checkpoints.config.LoadConfig`: `env`, `env_kwargs`, `wrapper`, ...

    Raises:
        UsageError: a file cannot be opened, or the output exists (without `force`) or cannot be written.
        RefusedError: the checkpoint is damaged, unsafe or unsupported.
    """
    from kdcli import artifact
    from kdcli.api.agents import find, find_whole
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig

    [config] = build(with_env_id(options), LoadConfig)
    if output is not None:
        artifact.refuse_existing(Path(output), force)
    if output is None:
        return find(agent, config, progress).agent
    found = find_whole(agent, config, progress)
    record = {
        "command": "load",
        "config": config.recorded(),
        "versions": artifact.versions("torch", "numpy", "safetensors"),
        "parents": found.parents,
    }
    found.agent.save(output, record, force)
    return found.agent


def inspect(agent: Path | str, *, progress: Listener = silent, **options: Any) -> InspectResult:
    """Say what the file `agent` holds: algorithm, spaces, layers, parameters, normalizer, env, signals.

    Args:
        agent: Any file that `kdcli.load` reads, an exported file, or a foreign ONNX file.
        **options: Fields of `kdcli.checkpoints.config.LoadConfig`.

    Raises:
        UsageError: the file cannot be opened, or an option it needs is missing.
        RefusedError: it is damaged, unsafe or unsupported.
    """
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.checkpoints.files import inspect as describe

    [config] = build(with_env_id(options), LoadConfig)
    return InspectResult(describe(Path(agent), config, progress))


@dataclass(frozen=True, repr=False)
class InspectResult(Result):
    """What a file holds; `details` has the keys of `kdcli.checkpoints.files.inspect`, None where it does not say."""

    details: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.details[key]

    def facts(self) -> Mapping[str, Any]:
        """The keys that the file says something about."""
        shown = ("file", "format", "algorithm", "env", "observation", "action", "network", "actor_params", "signals")
        return {key: self.details[key] for key in shown if self.details.get(key)}
