"""What may be given for an agent: a file, a kdcli agent, or a Stable-Baselines3 model in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.applies import given_fields
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read, read_any
from kdcli.checkpoints.sb3.zoo import asked_env
from kdcli.errors import RefusedError, UsageError, option
from kdcli.progress import Listener, silent

Kind = TypeVar("Kind", bound=Agent | OnnxAgent, covariant=True)


@dataclass(frozen=True, eq=False)
class Given(Generic[Kind]):
    """An agent that was given to a verb: where it comes from, for the record of what is made of it.

    `file` is None for one that was in memory.
    """

    agent: Kind
    parent: Mapping[str, str]
    file: Path | None = None

    @property
    def parents(self) -> list[Mapping[str, str]]:
        """What a file that is made of it records."""
        return [self.parent]


def find(agent: Any, config: LoadConfig | None = None, listen: Listener = silent) -> Given[Agent | OnnxAgent]:
    """The agent behind `agent`.

    Args:
        agent: A path, an `Agent` or `OnnxAgent`, or a Stable-Baselines3 model.
        config: What the caller says about it; of an agent in memory, its env alone.

    Raises:
        UsageError: it is none of these, or a file that cannot be opened.
        RefusedError: a file that is damaged, unsafe or unsupported.
    """
    config = config or LoadConfig()
    if isinstance(agent, str | Path):
        file = find_file(Path(agent))
        return Given(read_any(file, config, listen), artifact.parent(file), file)
    if isinstance(agent, Agent | OnnxAgent):
        _refuse_file_options(config)
        return Given(_placed(agent, config, listen), {"name": agent.name, "sha256": _digest(agent)})
    if _is_sb3(agent):
        return _of_sb3(agent, config, listen)
    what = f"{type(agent).__module__}.{type(agent).__name__}"
    raise UsageError(f"{what} is not an agent", "known: a path, a kdcli agent, a Stable-Baselines3 model", "save it")


def find_whole(agent: Any, config: LoadConfig | None = None, listen: Listener = silent) -> Given[Agent]:
    """As `find`, an agent whose layers can be changed.

    Raises:
        RefusedError: also for an exported file, which can be run and compared, not taken apart.
    """
    found = find(agent, config, listen)
    if not isinstance(found.agent, Agent):
        why = "an exported file can be run and compared, not taken apart again"
        raise RefusedError(f"{found.agent.name} is an export", why, "give the agent or checkpoint it was made from")
    return Given(found.agent, found.parent, found.file)


def as_list(agents: Any) -> list[Any]:
    """One, or a list or tuple of them, as a list."""
    return list(agents) if isinstance(agents, list | tuple) else [agents]


def _refuse_file_options(config: LoadConfig) -> None:
    """Raise UsageError for an option that says how a file is read, where there is none."""
    for name in sorted(given_fields(config) - {"env", "env_kwargs", "wrapper", "envs"}):
        why = "the agent is in memory already"
        raise UsageError(f"{option(name)} would change nothing", why, f"leave {option(name)} out")


def _placed(agent: Agent | OnnxAgent, config: LoadConfig, listen: Listener) -> Agent | OnnxAgent:
    """The agent in the env that the caller names, or in its own with the caller's arguments and wrappers."""
    env = asked_env(config, agent, listen)
    return replace(agent, env=None if env is None else env.within(config.envs or 0))


def _digest(agent: Agent | OnnxAgent) -> str:
    """sha256 of what an agent file of it would hold."""
    if isinstance(agent, OnnxAgent):
        return str(agent.record.get("digest", ""))
    from kdcli.agents.description import describe, tensors_of

    return hashlib.sha256(artifact.pack(describe(agent), tensors_of(agent))).hexdigest()


def _is_sb3(model: Any) -> bool:
    """Whether it is a model of Stable-Baselines3, which need not be installed to ask."""
    return any(kind.__module__.startswith("stable_baselines3.common.base_class") for kind in type(model).__mro__)


def _of_sb3(model: Any, config: LoadConfig, listen: Listener) -> Given[Agent]:
    """A model as if it had been saved, with the statistics and the env that it holds."""
    from kdcli.api.envs import env_id

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{type(model).__name__.lower()}.zip"
        model.save(file)
        statistics = model.get_vec_normalize_env()
        if statistics is not None and config.vecnormalize == "auto":
            statistics.save(str(Path(folder) / "vecnormalize.pkl"))
            config = config.model_copy(update={"vecnormalize": str(Path(folder) / "vecnormalize.pkl")})
        if config.env is None and model.get_env() is not None:
            config = config.model_copy(update={"env": env_id(model.get_env())})
        return Given(read(file, config, listen), artifact.parent(file))
