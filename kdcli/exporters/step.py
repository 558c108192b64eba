"""An agent to a file: trace, write, compare, and only then let the file appear."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.agents.folding import can_fold, fold
from kdcli.agents.onnx.session import OnnxAgent, from_bytes
from kdcli.agents.packed_weights import stored_as
from kdcli.agents.states import States
from kdcli.agents.store import describe
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters import EXPORTERS, SUFFIXES
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.formats import Examples, Files, Format
from kdcli.exporters.onnx.writer import SUFFIX
from kdcli.exporters.parity import Parity, check, check_states
from kdcli.exporters.quant_step import grid_step
from kdcli.exporters.rounding import compared, rounded
from kdcli.exporters.states import gather
from kdcli.graph.count import Count, count
from kdcli.graph.operations import Graph, Port
from kdcli.graph.trace import trace
from kdcli.spec import STATE_IN, STATE_OUT, feed

_N_EXAMPLES = 16  # that a test which is shipped runs through
Parents = Sequence[Mapping[str, str]]

_DESCRIBED = ("name", "observation", "action", "env", "facts", "parts", "network", "signal", "rule")


@dataclass(frozen=True, eq=False)
class Exported:
    """Checked files that are not yet written, by suffix: how alike they act, and what is in them."""

    files: Files
    parity: Parity
    record: Mapping[str, Any]
    size: Count

    @property
    def data(self) -> bytes:
        """The file that the others go with, or the only one."""
        return next(iter(self.files.values()))

    @cached_property
    def agent(self) -> OnnxAgent:
        """The ONNX file as an agent.

        Raises:
            KeyError: another format.
        """
        return from_bytes(self.files[SUFFIX], self.record["name"])

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write every file, each whole or not at all, the one at `path` last.

        Raises:
            UsageError: one exists (without `force`) or cannot be written.
        """
        path = Path(path)
        named = {path.with_name(stem_of(path) + suffix): data for suffix, data in self.files.items()}
        named = {path if i == 0 else file: data for i, (file, data) in enumerate(named.items())}
        for file in named:
            artifact.refuse_existing(file, force)
        for file, data in reversed(named.items()):
            artifact.write_bytes(file, data, force)
        return path

    def summary(self) -> dict[str, Any]:
        """What there is to say of it, as JSON values."""
        return {
            "format": self.record["config"]["format"],
            "inputs": [port["name"] for port in self.record["inputs"]],
            "outputs": [port["name"] for port in self.record["outputs"]],
            "files": {suffix: len(data) for suffix, data in self.files.items()},
            "size_bytes": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
            **asdict(self.size),
            "parity": self.parity.to_json(),
            **({"memory": self.record["memory"]} if "memory" in self.record else {}),
        }


def resolved(config: ExportConfig, output: Path) -> ExportConfig:
    """The options with the format settled: as they say, or as the output's suffix does.

    Raises:
        UsageError: the suffix is that of no format, or of another one than the options name.
    """
    asked = SUFFIXES.get(output.suffix)
    if asked is None and config.format == "auto":
        known = ", ".join(f"{suffix} ({name})" for suffix, name in SUFFIXES.items())
        what = f"{output.name} does not say what to write"
        raise UsageError(what, f"a format goes by its suffix: {known}", "choose one of them, or name a --format")
    own = next((suffix for suffix, name in SUFFIXES.items() if name == config.format), None)
    if asked is not None and own not in (None, output.suffix):
        what = f"{output.name} is no name for a file of the format {config.format}"
        raise UsageError(what, f"{output.suffix} says {asked}", f"end it in {own}, or leave --format out")
    return config.model_copy(update={"format": asked}) if asked and config.format == "auto" else config


def stem_of(path: Path) -> str:
    """What the names of files that belong together begin with: all but the suffix of a format."""
    return path.stem if path.suffix in SUFFIXES else path.name


def convert(
    agent: Agent, states: States | None, config: ExportConfig, parents: Parents = (), stem: str = "policy"
) -> Exported:
    """The agent as files that act as it does on `states`; without states, on those it plays into.

    `parents` are the files it was made from (`artifact.parent`), `stem` is what the files will be called.

    Raises:
        UsageError: an output the agent does not have, an opset that is not known, states of the wrong shape.
        RefusedError: the files would not act like the agent.
    """
    config = config.model_copy(update={"format": "onnx"}) if config.format == "auto" else config
    states = gather(agent, config.states, config.seed) if states is None else states
    check_states(states.observations, agent.observation)
    shipped = rounded(agent) if config.precision == "fp16" else agent
    made = _written(shipped, states, config, stem)
    record = {**_record(agent, made, config, parents), "precision": _precision(agent, shipped, states)}
    form: Format = EXPORTERS.load(config.format)
    taken = form.memory(made.files)
    record |= {"memory": dict(taken)} if taken else {}
    files = form.stamp(made.files, record)
    return Exported(files, made.parity, record, count(made.graph))


@dataclass(frozen=True)
class _Written:
    """Files that were compared with the agent, the graph they come from, and whether a normalizer is folded in."""

    files: Files
    graph: Graph
    parity: Parity
    folded: bool


def _written(agent: Agent, states: States, config: ExportConfig, stem: str) -> _Written:
    """The normalizer is folded where that changes no action."""
    form: Format = EXPORTERS.load(config.format)

    def attempt(shipped: Agent, folded: bool) -> _Written:
        graph = trace(shipped, config.outputs)
        files = form.write(graph, config, stem, _examples(shipped, graph, states))
        alike = check(form.runner(files, graph), agent, states, _state_size(graph), grid_step(graph))
        return _Written(files, graph, alike, folded)

    if can_fold(agent) and config.precision == "fp32":
        with suppress(RefusedError):
            return attempt(fold(agent), True)
    return attempt(agent, False)


def _examples(agent: Agent, graph: Graph, states: States) -> Examples:
    """What the policy does in the first states, each as if an episode began there."""
    obs = states.observations[:_N_EXAMPLES].astype(agent.observation.dtype, copy=False)
    heads = agent.heads(obs)
    said = {name: tensor.numpy() for name, tensor in heads.present().items()}
    size = _state_size(graph)
    memory = {STATE_IN: np.zeros((len(obs), size), np.float32), STATE_OUT: said["state"][:, :size]} if size else {}
    given = {**said, **memory, **feed(agent.observation, obs), "action": agent.decode(heads)}
    return {port.name: given[port.name] for port in (*graph.inputs, *graph.outputs)}


def _precision(agent: Agent, shipped: Agent, states: States) -> dict[str, Any] | None:
    """What the weights are stored as, and what their rounding here changes on the same states; None for float32."""
    if shipped is agent:
        return {"weights": stored_as(agent.policy)} if agent.policy.packing else None
    return {"weights": "fp16", **compared(agent, shipped, states)}


def _normalizer(agent: Agent, folded: bool) -> str | None:
    if all(part.normalizer is None for part in agent.preprocess.parts.values()):
        return None
    return "folded" if folded else "inside"


def export(agent: Agent, path: Path, states: States | None, config: ExportConfig, force: bool = False) -> Exported:
    """`convert`, and the file at `path`.

    Raises:
        UsageError: as `convert`; a file exists (without `force`) or cannot be written.
        RefusedError: as `convert`; nothing is written.
    """
    artifact.refuse_existing(path, force)
    exported = convert(agent, states, resolved(config, path), stem=stem_of(path))
    exported.save(path, force)
    return exported


def _record(agent: Agent, made: _Written, config: ExportConfig, parents: Parents) -> dict[str, Any]:
    """What the file says of itself: all that is needed to use it, and where it came from; no path, no time."""
    described, graph = describe(agent), made.graph
    state = _state_size(graph)
    return {
        **{key: described[key] for key in _DESCRIBED},
        "inputs": [_port(port) for port in graph.inputs],
        "outputs": [_port(port) for port in graph.outputs],
        "state": {"size": state, "reset": "zeros where an episode begins"} if state else None,
        "normalizer": _normalizer(agent, made.folded),
        "sampled_by": _sampled_by(agent),
        "config": config.model_dump(mode="json"),
        "parity": made.parity.to_json(),
        "parents": [dict(parent) for parent in parents],
        "versions": artifact.versions("torch", *(("onnx", "onnxruntime") if config.format == "onnx" else ("numpy",))),
    }


def _state_size(graph: Graph) -> int:
    return next((port.size for port in graph.inputs if port.name == STATE_IN), 0)


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": ["batch", *port.shape], "dtype": port.dtype}


def _sampled_by(agent: Agent) -> list[str]:
    """The outputs that its distribution consists of; none for a policy that is always greedy."""
    if agent.policy.signal == "logits":
        return ["logits"]
    return ["mean", "log_std"] if agent.policy.spread is not None else []
