"""What a file holds, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli import artifact
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read_any, sniff, whatever_it_says
from kdcli.progress import Listener, silent
from kdcli.spec import Box, Space, space_from_json, space_to_json

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.observation import Normalizer
    from kdcli.agents.onnx.session import OnnxAgent


def inspect(source: Path, config: LoadConfig | None = None, listen: Listener = silent) -> dict[str, Any]:
    """What the file `source` holds, as JSON values.

    Keys: file, format, sha256, algorithm, observation, action, env, normalizer, network, activation, rule, signals,
    state_size, actor_params, critic_params, total_params, the remaining facts of where it came from, made (how an agent
    file was made), storage (its bits a weight, and bytes by part), contract (what an export promises: inputs, outputs,
    state, action_range, normalizer, parity, parents, versions) and program (the ends of a foreign ONNX file). What a
    kind of file does not tell is None.

    Raises:
        UsageError: the file cannot be opened, or what it does not tell is not named.
        RefusedError: it is damaged, unsafe, or of a kind not read yet.
    """
    file, config = find_file(source), config or LoadConfig()
    kind = sniff(file)
    with whatever_it_says(file):
        if kind in _PROGRAMS:
            return _of_program(file, kind, config, listen)
        agent = read_any(file, config, listen)
        own = {"made": _made(file), "storage": _storage(file, agent)} if kind == "native" else {}
        return {**_named(file, kind), **_of_any(agent), **own}


BLACK_BOX = "onnx"
_PROGRAMS = ("onnx_policy", "torchscript", "torch_export")
_UNTOLD = ("algorithm", "observation", "action", "env", "normalizer", "network", "activation", "rule", "actor_params")
_UNTOLD_TOO = ("state_size", "critic_params", "total_params", "made", "storage", "contract", "program")


def _named(file: Path, kind: str) -> dict[str, Any]:
    nothing = dict.fromkeys((*_UNTOLD, *_UNTOLD_TOO))
    return {"file": file.name, "format": kind, "sha256": artifact.sha256(file), **nothing, "signals": [], "facts": {}}


def _of_program(file: Path, kind: str, config: LoadConfig, listen: Listener) -> dict[str, Any]:
    """A foreign program: as a policy where its env is named, else what can be seen without running it."""
    from kdcli.checkpoints.blackbox import onnx_file, torch_program

    named = _named(file, kind)
    if kind == "onnx_policy":
        program = onnx_file.describe(file)
        known = _of_any(read_any(file, config, listen)) if config.env else {"actor_params": program["parameters"]}
        return {**named, **known, "program": program}
    record = torch_program.own_record(file)
    if record is not None and not config.trust:
        return {**named, **_of_record(record)}
    return {**named, **_of_any(read_any(file, config, listen))}


def _of_any(agent: Agent | OnnxAgent) -> dict[str, Any]:
    from kdcli.agents.agent import Agent

    if isinstance(agent, Agent):
        return _of_agent(agent)
    return {**_of_record(agent.record), "signals": agent.outputs, "actor_params": agent.n_params} | _place(agent)


def _place(agent: Agent | OnnxAgent) -> dict[str, Any]:
    env = None if agent.env is None else agent.env.to_json()
    return {"observation": str(agent.observation), "action": str(agent.action), "env": env}


def _of_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: facts.get(name) for name in ("algorithm", "critic_params", "total_params")}
    return {**told, "facts": dict(facts)}


def _of_agent(agent: Agent) -> dict[str, Any]:
    network, rule = agent.policy.network, agent.policy.rule
    config = network.config()
    return {
        **_of_facts(agent.facts),
        **_place(agent),
        "normalizer": _normalizer([part.normalizer for part in agent.preprocess.parts.values()]),
        "network": str(network),
        "activation": config.get("activation") if config.get("hidden") else None,
        "rule": _rule(rule.continuous, rule.squash, rule.limit),
        "signals": agent.signals(),
        "state_size": agent.state_size,
        "actor_params": agent.n_params,
    }


def _normalizer(found: Sequence[Normalizer | None]) -> dict[str, Any] | None:
    """How many numbers are normalised, and where they are clipped."""
    kept = [norm for norm in found if norm is not None]
    if not kept:
        return None
    clip = min(norm.clip for norm in kept)
    return {"values": sum(norm.mean.size for norm in kept), "clip": clip if math.isfinite(clip) else None}


def _of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an exported file says of itself."""
    network, rule, state = record["network"], record["rule"], record.get("state")
    action = space_from_json(record["action"])
    return {
        **_of_facts(record.get("facts", {})),
        "observation": str(space_from_json(record["observation"])),
        "action": str(action),
        "env": record.get("env"),
        "normalizer": {} if record["normalizer"] else None,
        "network": _network(network),
        "activation": network.get("activation") if network.get("hidden") else None,
        "rule": _rule(isinstance(action, Box), rule["squash"], rule["limit"]),
        "signals": [port["name"] for port in record.get("outputs", [])],
        "state_size": 0 if state is None else state["size"],
        "contract": None if network["kind"] == BLACK_BOX else _contract(record, action),
    }


def _contract(record: Mapping[str, Any], action: Space) -> dict[str, Any]:
    """What whoever runs the file can count on."""
    told = {name: record.get(name) for name in ("inputs", "outputs", "state", "normalizer", "parity", "parents")}
    return {**told, "action_range": _range(action), "versions": record.get("versions"), "config": record.get("config")}


def _range(action: Space) -> list[Any] | None:
    """The least and the greatest value of a real action; infinities as text, since JSON has none."""
    if not isinstance(action, Box):
        return None
    described = space_to_json(action)
    return [described["low"], described["high"]]


def _network(described: Mapping[str, Any]) -> str:
    """A network in a few words, from its description alone."""
    if described["kind"] == BLACK_BOX:
        return "a black box"
    if described["kind"] == "mlp":
        return "-".join(map(str, (described["inputs"], *described["hidden"], described["outputs"])))
    layers = [layer for part in (*described["branches"], {"layers": described["trunk"]}) for layer in part["layers"]]
    return "-".join([*(_layer(*layer) for layer in layers), str(described["outputs"])])


def _layer(name: str, options: Mapping[str, Any]) -> str:
    width = str(options["out"]) if "out" in options else ""
    return width if name == "linear" else f"{name}:{width}" if width else name


_SQUASHES = {
    "clip": "clipped to the bounds",
    "tanh": "tanh, scaled to the bounds",
    "linear": "scaled to the bounds, not clipped",
}


def _rule(continuous: bool, squash: str, limit: float) -> str:
    """How outputs become actions, in words."""
    if not continuous:
        return "the greatest output"
    words = _SQUASHES[squash]
    return f"mean limited to {limit:g}, {words}" if limit else words


def _storage(file: Path, agent: Agent | OnnxAgent) -> dict[str, Any]:
    """Bits a weight, and the bytes of an agent file by part."""
    from kdcli.agents.agent import Agent
    from kdcli.agents.file_breakdown import bytes_by_part
    from kdcli.agents.packed_weights import bits_a_weight

    assert isinstance(agent, Agent)
    return {"bits": bits_a_weight(agent.policy), **bytes_by_part(file)}


def _made(file: Path) -> dict[str, Any] | None:
    """How an agent file was made, as it says."""
    record, _ = artifact.read_tensors(file)
    return record.get("made")
