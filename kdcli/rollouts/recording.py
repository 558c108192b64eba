"""Playing one shard: whoever acts, the teacher says what it would do in every state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from kdcli.agents.actor import Actor, teaches
from kdcli.agents.labels import label_step
from kdcli.agents.memory import Memory, Turn
from kdcli.datasets.observations import spread
from kdcli.datasets.shards import FIXED, Column, Columns, Layout, by_episode, empty, layout_of
from kdcli.envs.make import check_fits
from kdcli.envs.vector import Vector
from kdcli.rollouts.behavior_policy import Decision, Mixture
from kdcli.rollouts.checks import check_rollout
from kdcli.rollouts.config import RolloutConfig
from kdcli.rollouts.evaluate import open_vector
from kdcli.rollouts.seeds import first_seed
from kdcli.rollouts.step_loop import stream
from kdcli.spec import EnvSpec

GREEDY = "teacher.greedy"
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Cast:
    """Who plays where. `parents` are the files they come from: role -> digest (`artifact.parent`)."""

    env: EnvSpec
    teacher: Actor
    student: Actor | None = None
    parents: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """What one shard holds: `rows` steps from row `start` of the dataset on."""

    start: int
    rows: int


Heard = Callable[[Columns, int], None]


class _Actor:
    """The teacher as one that only acts.

    Its other signals cost more than its actions, one at a time; they are asked for later, in batches.
    """

    def __init__(self, agent: Actor) -> None:
        self.name, self.env = agent.name, agent.env
        self.observation, self.action = agent.observation, agent.action
        self.state_size, self._agent, self._memory = agent.state_size, agent, Memory(agent)

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """As the agent acts."""
        return self._agent.act(obs, rng)

    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As the agent steps."""
        return self._agent.step(obs, state, rng)

    def decide(self, turn: Turn) -> Decision:
        """As a mixture without others and without noise decides, in less time."""
        before = self._memory.recall(turn)
        action = self._memory.act(turn)
        return Decision(action, np.zeros(len(turn.obs), np.int8), {"greedy": action}, before)


def open_envs(cast: Cast, n: int) -> Vector:
    """`n` envs that teacher and student fit.

    Raises:
        UsageError: the env cannot be made, or one of them does not fit.
    """
    vector = open_vector(cast.env.within(n), cast.teacher, n)
    if cast.student is not None:
        own = (cast.student.observation, cast.student.action)
        check_fits(cast.env, (vector.observation, vector.action), own)
    return vector


def decider(cast: Cast, config: RolloutConfig, seed: int) -> Callable[[Turn], Decision]:
    """Who decides: raw observations (B, *shape) -> what is done, who chose it, and the teacher's greedy action.

    Raises:
        UsageError: a student that has no part, or a part that has no student.
    """
    check_rollout(config, cast.student is not None)
    teacher = _Actor(cast.teacher)
    if config.policy == "teacher" and not (config.noise or config.sampled):
        return teacher.decide
    return Mixture(teacher, cast.student, config.teacher_share, config.noise, seed, config.sampled).decide


def layout(cast: Cast, config: RolloutConfig, vector: Vector) -> dict[str, Column]:
    """The columns that a rollout records, found by asking everyone once.

    Raises:
        UsageError: as `decider`, or someone cannot act as asked.
    """
    vector.reset(0, _first_seed(config))
    first = Turn(vector.obs[:1], np.zeros(1, np.int64), np.ones(1, bool))
    state = decider(cast, config, 0)(first).state
    signals = layout_of({**_remembered(state), **_signals(cast.teacher, first.obs, state)})
    return {
        **layout_of(spread(vector.observation, first.obs)),
        "action": Column(cast.teacher.action.dtype, vector.action.shape),
        **FIXED,
        GREEDY: Column(cast.teacher.action.dtype, cast.teacher.action.shape),
        **signals,
    }


def record(cast: Cast, config: RolloutConfig, share: Share, columns: Layout, heard: Heard) -> Columns:
    """Play one shard in fresh envs: name -> array (rows, ...), episodes together, running ones cut at the end.

    It depends on nothing but its arguments: some envs (BipedalWalker's physics) keep traces of former episodes through
    a reset, so that none is used twice. Now and then `heard` is given the rows and how many are there.
    """
    vector = open_envs(cast, config.envs)
    rows, done = empty(columns, share.rows), 0
    try:
        for block in _blocks(_played(cast, config, vector, share.start), min(_BATCH, share.rows)):
            n = min(len(block["t"]), share.rows - done)
            obs, state = block.pop("obs"), block.pop("state")
            said = {**_remembered(state), **_signals(cast.teacher, obs, state)}
            for name, array in {**block, **spread(vector.observation, obs), **said}.items():
                rows[name][done : done + n] = array[:n]
            done += n
            heard(rows, done)
            if done == share.rows:
                break
    finally:
        vector.close()
    rows["episode"] += share.start
    rows["seed"][:] = _first_seed(config) + rows["episode"]
    return by_episode(rows)


def _blocks(steps: Iterable[Columns], rows: int) -> Iterator[Columns]:
    """Endless steps joined to blocks of at least `rows` rows: the cost of handling is that of a block, not a step."""
    waiting: list[Columns] = []
    for step in steps:
        waiting.append(step)
        if len(waiting) * len(step["t"]) >= rows:
            yield {name: np.concatenate([part[name] for part in waiting]) for name in step}
            waiting.clear()


def _played(cast: Cast, config: RolloutConfig, vector: Vector, start: int) -> Iterator[Columns]:
    """The columns of one step after another, each (envs, ...); episodes are numbered from 0 in every shard."""
    decide = decider(cast, config, int(np.random.SeedSequence((config.seed, start)).generate_state(1, np.uint64)[0]))
    said: list[Decision] = []

    def act(turn: Turn) -> np.ndarray:
        said[:] = [decide(turn)]
        return said[0].action

    for steps in stream(vector, count(_first_seed(config) + start), act):
        yield {
            "obs": steps.obs,
            "state": said[0].state,
            "action": steps.action,
            "behaviour": said[0].behaviour,
            "reward": steps.reward,
            "terminated": steps.terminated,
            "truncated": steps.truncated,
            "episode": steps.episode,
            "t": steps.t,
            GREEDY: said[0].labels["greedy"],
        }


def _first_seed(config: RolloutConfig) -> int:
    """The reset seed of episode 0; the others follow. A shard has no more episodes than rows."""
    return first_seed("train", config.seed)


def _remembered(state: np.ndarray) -> Columns:
    """What the teacher carried from the step before; nothing without memory."""
    return {"teacher.state": state} if state.shape[1] else {}


def _signals(teacher: Actor, obs: np.ndarray, state: np.ndarray) -> Columns:
    """What the teacher says beside its action; nothing for a black box."""
    if not teaches(teacher):
        return {}
    labels, _ = label_step(teacher, obs, state)
    return {f"teacher.{name}": array for name, array in labels.items() if name != "greedy"}
