"""Who is measured: one policy, run by torch, by onnxruntime, and in any other runtime for its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.benchmarks.program import Program, program

Runtime = Literal["torch", "onnxruntime"]


@dataclass(frozen=True)
class File:
    """The file a contender was read from: its name (no path), digest and length."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, eq=False)
class BenchEntry:
    """One policy: run by torch (`agent`), by onnxruntime (`exported`), or both.

    `plays` says which one plays the episodes; a file that will be shipped plays for itself. A `baseline` is shown for
    comparison and answers to no gate. `timed` are the programs whose calls are timed, by runtime; None: those of torch
    and onnxruntime. `path` is where it was read from; no record tells it.

    Raises:
        ValueError: nothing to run, or nothing to play with.
    """

    name: str
    agent: Agent | None = None
    exported: OnnxAgent | None = None
    file: File | None = None
    plays: Runtime = "torch"
    baseline: bool = False
    timed: Mapping[str, Program] | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.runtimes.get(self.plays) is None:
            raise ValueError(f"{self.name} cannot play with {self.plays}: it has no such agent")

    @property
    def runtimes(self) -> dict[Runtime, Actor]:
        """The agents that are there, by what runs them."""
        found: dict[Runtime, Actor | None] = {"torch": self.agent, "onnxruntime": self.exported}
        return {name: agent for name, agent in found.items() if agent is not None}

    @property
    def programs(self) -> Mapping[str, Program]:
        """What is timed, by runtime."""
        if self.timed is not None:
            return self.timed
        return {runtime: program(agent) for runtime, agent in self.runtimes.items()}

    @property
    def player(self) -> Actor:
        """The agent that plays."""
        return self.runtimes[self.plays]

    @property
    def is_stochastic(self) -> bool:
        """Whether it has a distribution to sample from; without one, sampled play is its deterministic play."""
        if self.agent is not None:
            policy = self.agent.policy
            return policy.signal == "logits" or policy.spread is not None
        assert self.exported is not None
        return bool(self.exported.record["sampled_by"])
