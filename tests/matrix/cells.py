"""The matrix: each algorithm with each action space, observation and normalizer it takes, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from rooms.sb3_oracle import ACTIONS, BOX, RGB, Columns, Teacher, episodes, fresh, rows

from kdcli.agents.action import ActionRule
from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.states import States, actions
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.spec import Box, Part

N_OBSERVATIONS = 1000
BATCHES = (1, 7, 64)
TOLERANCE = 1e-5
TIE = 1e-5

ANY_ACTION = ("box", "discrete", "multidiscrete", "multibinary")
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("PPO", "A2C", "TRPO", "RecurrentPPO"), ANY_ACTION),
    "MaskablePPO": ANY_ACTION[1:],
    **dict.fromkeys(("DQN", "QRDQN"), ("discrete",)),
    **dict.fromkeys(("SAC", "TD3", "DDPG", "TQC", "CrossQ"), ("box",)),
    "ARS": ("box", "discrete"),
}
FIRST = spaces.Box(0, 255, (3, 36, 44), np.uint8)
OBSERVATIONS: Mapping[str, spaces.Space] = {
    "flat": BOX,
    "image": RGB,
    "dict": spaces.Dict({"camera": RGB, "joints": BOX, "mode": spaces.Discrete(3), "touch": spaces.MultiBinary(2)}),
}
# What else an env may give, read by a few.
INTEGERS: Mapping[str, spaces.Space] = {
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "multibinary": spaces.MultiBinary(6),
}
READ_INTEGERS = (("PPO", "multidiscrete"), ("DQN", "discrete"), ("MaskablePPO", "multibinary"), ("RecurrentPPO", "box"))


@dataclass(frozen=True)
class Cell:
    """One agent of the matrix. `normalized`: VecNormalize, of a Dict the numbers alone."""

    algorithm: str
    action: str
    observation: str
    normalized: bool

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.action}-{self.observation}-{'normalized' if self.normalized else 'raw'}"

    @property
    def space(self) -> spaces.Space:
        """What the env gives: images with their channels last, as most envs do, unless VecNormalize comes first."""
        if self.observation == "image" and self.normalized:
            return FIRST
        return {**OBSERVATIONS, **INTEGERS}[self.observation]

    @property
    def channels_last(self) -> bool:
        return self.observation in ("image", "dict") and self.space is not FIRST

    def settings(self) -> dict[str, Any]:
        """Arguments of the algorithm, and of `fresh`."""
        found: dict[str, Any] = {"policy_kwargs": self._policy_kwargs()}
        if self.observation == "image" and self.algorithm not in ("ARS", "CrossQ"):
            found["policy"] = "CnnLstmPolicy" if self.algorithm == "RecurrentPPO" else "CnnPolicy"
        if self.normalized:
            found["normalized"] = ["joints"] if self.observation == "dict" else True
        return found

    def _policy_kwargs(self) -> dict[str, Any]:
        """Small networks, the fewer layers the longer the way: rounding grows with each, in SB3, too.

        CrossQ is given an extractor, since it has no policy for images.
        """
        far = (self.observation in ("image", "dict")) + (self.algorithm == "RecurrentPPO")
        hidden = [16, 12][far:]
        one = self.algorithm in ("DQN", "QRDQN", "ARS")
        arch: Any = hidden if one else {"pi": hidden, "qf": [8], "vf": [8]}
        found: dict[str, Any] = {"net_arch": arch}
        if self.algorithm == "RecurrentPPO":
            found["lstm_hidden_size"] = 12
        if self.algorithm == "ARS" or self.observation not in ("image", "dict"):
            return found
        return found | self._extractor()

    def _extractor(self) -> dict[str, Any]:
        from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN

        image = self.observation == "image"
        inside: dict[str, Any] = {"features_dim" if image else "cnn_output_dim": 24}
        found: dict[str, Any] = {"features_extractor_kwargs": inside}
        if self.algorithm == "CrossQ":
            found["features_extractor_class"] = NatureCNN if image else CombinedExtractor
        if image and self.normalized:  # what VecNormalize gives is no image to Stable-Baselines3
            inside["normalized_image"], found["normalize_images"] = True, False
        return found

    def teacher(self, folder: Path) -> Teacher:
        """A fresh model, saved in `folder`."""
        return fresh(folder, self.algorithm, self.space, ACTIONS[self.action], **self.settings())


QUICK = (
    Cell("PPO", "box", "dict", True),
    Cell("PPO", "multidiscrete", "multidiscrete", False),
    Cell("A2C", "multibinary", "flat", True),
    Cell("TRPO", "multidiscrete", "image", False),
    Cell("DQN", "discrete", "image", True),
    Cell("QRDQN", "discrete", "dict", False),
    Cell("SAC", "box", "image", False),
    Cell("TD3", "box", "flat", True),
    Cell("DDPG", "box", "dict", True),
    Cell("TQC", "box", "flat", False),
    Cell("ARS", "box", "flat", True),
    Cell("CrossQ", "box", "flat", False),
    Cell("RecurrentPPO", "box", "flat", False),
    Cell("RecurrentPPO", "discrete", "dict", True),
    Cell("MaskablePPO", "discrete", "flat", True),
    Cell("MaskablePPO", "multibinary", "dict", False),
)


def cells() -> Iterator[Cell]:
    """Every cell that Stable-Baselines3 can build."""
    for algorithm, does in ALGORITHMS.items():
        for action in does:
            for observation in OBSERVATIONS:
                if algorithm == "ARS" and observation == "dict":
                    continue  # its policies have no extractor
                yield from (Cell(algorithm, action, observation, normalized) for normalized in (False, True))
    for algorithm, action in READ_INTEGERS:
        for seen in INTEGERS:
            if (algorithm, seen) != ("RecurrentPPO", "multidiscrete"):  # sb3-contrib cannot build it
                yield Cell(algorithm, action, seen, False)


@dataclass(frozen=True)
class Row:
    """What was measured: the worst difference in half-ranges, and choices that differ, in a tie or not."""

    cell: Cell
    batch: int
    kind: str
    n: int
    worst: float
    mismatches: int
    ties: int

    def __str__(self) -> str:
        cell = self.cell
        names = f"{cell.algorithm:<13}{cell.action:<14}{cell.observation:<14}{'on' if cell.normalized else 'off':<5}"
        measured = f"{self.n:>6}{self.worst:>10.1e}{self.mismatches:>11}{self.ties:>6}"
        return f"{names}{self.batch:>5}  {self.kind:<6}{measured}"


HEADER = f"{'algorithm':<13}{'action':<14}{'observation':<14}{'norm':<5}{'batch':>5}  {'kind':<6}{'n':>6}{'worst':>10}"
HEADER += f"{'mismatches':>11}{'ties':>6}"


def summary(found: Sequence[Row]) -> str:
    """The table in one line."""
    worst = max((row.worst for row in found), default=0.0)
    mismatches, ties, n = (sum(getattr(row, name) for row in found) for name in ("mismatches", "ties", "n"))
    agents = len({row.cell for row in found})
    return f"{agents} agents, {len(found)} rows, {n:,} actions: {mismatches} mismatches, {ties} ties, worst {worst:.1e}"


@dataclass(frozen=True, eq=False)
class Played:
    """Actions (N, ...) of Stable-Baselines3, and the states they were taken in."""

    actions: np.ndarray
    states: Callable[[Actor], States]
    batch: int


@dataclass(eq=False)
class Bench:
    """One cell's model, and what kdcli made of its file."""

    cell: Cell
    teacher: Teacher
    agent: Agent
    exported: Actor
    columns: Columns = field(default_factory=dict)

    def measure(self) -> Iterator[Row]:
        """A row for each size of batch, for torch and for the exported file."""
        for batch in BATCHES:
            played = self._played(batch)
            _assert_varied(played.actions, self.agent.action)
            for kind, who in (("torch", self.agent), ("onnx", self.exported)):
                yield self._compared(played, kind, _act(who, played))

    def _played(self, batch: int) -> Played:
        """What Stable-Baselines3 does: in batches, or through episodes side by side."""
        n = -(-N_OBSERVATIONS // batch)
        if not self.agent.state_size:
            starts = range(0, N_OBSERVATIONS, batch)
            found = [self.teacher.on({k: c[a : a + batch] for k, c in self.columns.items()}) for a in starts]
            return Played(np.concatenate(found), lambda who: States(rows(who, self.columns)), batch)
        columns = {k: c[: n * batch].reshape(n, batch, *c.shape[1:]) for k, c in self.columns.items()}
        begins = np.random.default_rng(batch).random((n, batch)) < 0.05
        begins[0] = True
        expected = self.teacher.through(columns, begins)
        return Played(expected.reshape(-1, *expected.shape[2:]), lambda who: episodes(who, columns, begins), batch)

    def _compared(self, played: Played, kind: str, found: np.ndarray) -> Row:
        wanted = played.actions
        assert len(found) == len(wanted) >= N_OBSERVATIONS
        assert found.shape == wanted.shape
        if isinstance(self.agent.action, Box):
            half = (self.agent.action.high - self.agent.action.low) / 2
            gaps = np.abs(found.astype(np.float64) - wanted) / half
            wrong = (gaps > TOLERANCE).reshape(len(gaps), -1).any(1)
            return Row(self.cell, played.batch, kind, len(found), float(gaps.max()), int(wrong.sum()), 0)
        other = (found != wanted).reshape(len(found), -1)
        close = other & self._ties(played, other)
        wrong, tied = (other & ~close).any(1), close.any(1)
        return Row(self.cell, played.batch, kind, len(found), 0.0, int(wrong.sum()), int((tied & ~wrong).sum()))

    def _ties(self, played: Played, other: np.ndarray) -> np.ndarray:
        """Where the best two are alike, (N, choices)."""
        if not other.any():
            return other
        return _margins(_scores(self.agent, played.states(self.agent)), self.agent.policy.rule) <= TIE


def _assert_varied(actions: np.ndarray, space: Part) -> None:
    """The oracle does not always do the same: else the comparison says nothing."""
    least = (space.high - space.low) / 2 if isinstance(space, Box) else 1
    assert (np.ptp(actions, axis=0) >= least).all()


def _act(who: Actor, played: Played) -> np.ndarray:
    """Actions in batches of the same size, or through the same episodes."""
    states = played.states(who)
    if who.state_size:
        return actions(who, states)
    obs = states.observations
    return np.concatenate([who.act(obs[a : a + played.batch]) for a in range(0, len(obs), played.batch)])


def _scores(agent: Agent, states: States) -> np.ndarray:
    """What the action rule reads (N, P)."""
    if not agent.state_size:
        return agent.heads(states.observations).scores().numpy()
    state, found = np.zeros((states.slots, agent.state_size), np.float32), []
    for obs, begins in zip(*states.turns(), strict=True):
        state[begins] = 0.0
        heads = agent.heads(obs, state)
        assert heads.state is not None
        state = heads.state.numpy().copy()
        found.append(heads.scores().numpy())
    return np.concatenate(found)


def _margins(scores: np.ndarray, rule: ActionRule) -> np.ndarray:
    """How much the best is ahead in each choice, beside the largest score: (N, P) -> (N, choices)."""
    if rule.bits:
        return np.abs(scores) / np.maximum(1.0, np.abs(scores))
    groups = [np.sort(group, axis=1) for group in np.split(scores, np.cumsum(rule.groups)[:-1], axis=1)]
    return np.stack([(g[:, -1] - g[:, -2]) / np.maximum(1.0, np.abs(g[:, -1])) for g in groups], axis=1)


def bench(cell: Cell, folder: Path) -> Bench:
    """The cell's model, built and saved by Stable-Baselines3, loaded by kdcli and exported."""
    teacher = cell.teacher(folder)
    agent = read(teacher.path, LoadConfig(channels_last=True if cell.channels_last else None))
    columns = teacher.columns(-(-N_OBSERVATIONS // max(BATCHES)) * max(BATCHES))
    few = {name: column[:40] for name, column in columns.items()}
    exported = convert(agent, States(rows(agent, few)), ExportConfig())
    if not agent.state_size:
        columns = {name: column[:N_OBSERVATIONS] for name, column in columns.items()}
    return Bench(cell, teacher, agent, exported.agent, columns)
