"""Agents that were read from files, made ready to compete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.artifact import sha256
from kdcli.benchmarks.entry import BenchEntry, File
from kdcli.errors import UsageError
from kdcli.progress import Listener, Note, silent
from kdcli.spec import EnvSpec

LINEAR = "linear"
RANDOM = "random"
TAKEN = (LINEAR, RANDOM)


def enter(files: Sequence[Path | None], agents: Sequence[Agent | OnnxAgent]) -> list[BenchEntry]:
    """One entry an agent, in their order: an ONNX policy plays through onnxruntime, any other through torch.

    Agents in memory have no file; they are called by their own names.
    """
    names = names_of([file or Path(agent.name) for file, agent in zip(files, agents, strict=True)])
    return [_entry(*found) for found in zip(names, files, agents, strict=True)]


def _entry(name: str, path: Path | None, agent: Agent | OnnxAgent) -> BenchEntry:
    file = None if path is None else File(path.name, sha256(path), path.stat().st_size)
    if isinstance(agent, OnnxAgent):
        return BenchEntry(name, None, agent, file, "onnxruntime", path=path)
    return BenchEntry(name, agent, None, file, path=path)


def names_of(files: Sequence[Path]) -> list[str]:
    """The shortest names that tell the files apart: without suffix, with it, with a folder, or numbered."""
    folders = [[folder.name for folder in file.resolve().parents] for file in files]
    nested = [
        [f"{name}/{file.stem}" for name, file in zip(level, files, strict=True)]
        for level in zip(*folders, strict=False)
    ]
    ways = [[file.stem for file in files], [file.name for file in files], *nested]
    return next((names for names in ways if len({*names, *TAKEN}) == len(names) + len(TAKEN)), _numbered(ways[0]))


def _numbered(names: Sequence[str]) -> list[str]:
    seen, found = Counter(TAKEN), []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return found


def choose_env(entries: Sequence[BenchEntry], listener: Listener = silent) -> EnvSpec:
    """The env that the first contender that knows one was trained on; a note where others were trained elsewhere.

    Raises:
        UsageError: no contender knows.
    """
    known = {entry.name: entry.player.env for entry in entries}
    found = next((env for env in known.values() if env is not None), None)
    if found is None:
        raise UsageError("no agent says which env it plays", "their files do not tell", "name it with --env")
    for name, env in known.items():
        if env is not None and env.id != found.id:
            listener(Note(f"{name} was trained on {env}; here it plays {found}"))
    return found


def is_linear(entry: BenchEntry) -> bool:
    """Whether its network has no hidden layer."""
    if entry.agent is not None:
        return entry.agent.policy.network.is_linear
    assert entry.exported is not None
    network = entry.exported.record["network"]
    return network["kind"] == "mlp" and not network["hidden"]
