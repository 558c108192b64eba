"""Learning from rewards beside a teacher: the student plays, and what did better than expected becomes likelier.

The distilled objective and this one are one sum (Spigler 2025, Proximal Policy Distillation, eq. 5), each weight on a
schedule of its own. Every round begins with fresh play of the student, drawn from its own distribution. The critic
begins with what the teacher expects of these states, where it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.actor import Actor, LabelingActor, no_memory, teaches
from kdcli.agents.agent import Agent
from kdcli.agents.distributions import done, drawn, entropy, log_likelihood
from kdcli.agents.memory import Turn
from kdcli.distillation import REINFORCEMENTS
from kdcli.distillation.checkpointing import (
    SavedState,
    below,
    generator_state,
    module_state,
    restore_generator,
    restore_module,
    under,
)
from kdcli.distillation.term_weights import parse_weight
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError, option
from kdcli.networks.mlp import MLP
from kdcli.rollouts.resumable import Track
from kdcli.rollouts.seeds import first_seed
from kdcli.rollouts.step_loop import Steps

GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2
_CRITIC_WIDTHS, _CRITIC_STEPS, _CRITIC_LR = (64, 64), 400, 1e-3

# log pi(a) now and when it was done, advantage, each (B,) -> a loss for each sample (B,).
Gain = Callable[[Tensor, Tensor, Tensor], Tensor]


def ppo(now: Tensor, then: Tensor, advantage: Tensor) -> Tensor:
    """The clipped surrogate, its sign turned -> (B,). Schulman et al. 2017, eq. 7."""
    ratio = (now - then).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - CLIP, 1.0 + CLIP) * advantage)


def policy_gradient(now: Tensor, then: Tensor, advantage: Tensor) -> Tensor:
    """-log pi(a) A -> (B,); Sutton et al. 2000, theorem 1."""
    return -now * advantage


@dataclass(frozen=True, eq=False)
class Experience:
    """Steps of the student's own play: features (N, F), what was drawn (N, ...), its log-likelihood and advantage."""

    features: Tensor
    drawn: Tensor
    log_p: Tensor
    advantage: Tensor


@dataclass(frozen=True)
class Practice:
    """How a student practices.

    Attributes:
        steps: of the env, each round, in all slots together.
        batch: of them, each gradient step.
        entropy: what a nat of the entropy of what it does in a state is worth, beside advantages of deviation 1.
        seed: of its draws.
    """

    steps: int
    batch: int
    entropy: float = 0.0
    seed: int = 0


class Reinforcement:
    """One way to learn from rewards, and the play it learns from, in the slots of `vector`.

    `teacher` is whose values the critic begins with; one with memory, or without values, is not asked.

    Raises:
        UsageError: an unknown name, or a weight that cannot be read.
    """

    def __init__(self, text: str, vector: Vector, practice: Practice, teacher: Actor | None = None) -> None:
        name, _, weight = text.partition("@")
        self._gain: Gain = REINFORCEMENTS.load(name)
        self._weight = parse_weight(weight or "1")
        self._practice, seed = practice, practice.seed
        self._rng, self._generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self._said: list[tuple[Tensor, Tensor, Tensor]] = []
        self._teacher: LabelingActor | None = (
            teacher if teacher and teaches(teacher) and not teacher.state_size else None
        )
        self._student: Agent | None = None
        self._measured: Mapping[str, float] = {}
        self._track = Track(vector, first_seed("reinforce", seed), self._act)
        self._critic: MLP | None = None
        self._experience: Experience | None = None

    def _act(self, turn: Turn) -> np.ndarray:
        assert self._student is not None
        features = self._student.preprocess(turn.obs)
        with torch.no_grad():
            heads = self._student.policy.forward(features)
            raw = drawn(heads, self._rng)
            self._said.append((features, raw, log_likelihood(heads, raw)))
            return self._student.ready(done(raw, self._student.rule))

    def watch(self, student: Agent, measured: Mapping[str, float]) -> None:
        """Play, fit the critic to what came of it, and keep the play for the round; weights may follow `measured`."""
        no_memory(student)
        if student.policy.signal == "mean" and student.policy.spread is None:
            raise UsageError(
                "rewards teach a student that explores",
                "this one has no spread",
                f"leave {option('reinforce')} out, or begin with a new student: {option('init', 'random')}",
            )
        self._student, self._measured = student, measured
        self._said.clear()
        steps = [next(self._track) for _ in range(max(2, self._practice.steps // len(self._track)))]
        features, raw, log_p = (torch.stack(rows[: len(steps)]) for rows in zip(*self._said, strict=True))
        advantage = self._advantages(features, steps)
        features, raw, log_p = (x.flatten(0, 1)[: advantage.numel()] for x in (features, raw, log_p))
        relative = (advantage - advantage.mean()) / advantage.std().clamp(min=1e-6)
        self._experience = Experience(features, raw, log_p, relative.flatten())

    def _advantages(self, features: Tensor, steps: list[Steps]) -> Tensor:
        """Generalized advantages (T - 1, slots) of all steps but the last; Schulman et al. 2016, eq. 16."""
        reward = torch.tensor(np.stack([s.reward for s in steps]), dtype=torch.float32)
        over = torch.tensor(np.stack([s.terminated for s in steps]))
        done = torch.tensor(np.stack([s.done for s in steps]))
        scale = reward.std().clamp(min=1e-6)
        values = self._values(features, np.concatenate([s.obs for s in steps]), reward / scale, over, done)
        found, running = torch.zeros_like(reward[:-1]), torch.zeros(reward.shape[1])
        for t in reversed(range(len(steps) - 1)):
            # A cut episode's next state is not seen: what it is worth is taken to be what this one is.
            after = torch.where(over[t], 0.0, torch.where(done[t], values[t], values[t + 1]))
            error = reward[t] / scale + GAMMA * after - values[t]
            running = error + GAMMA * LAMBDA * torch.where(done[t], 0.0, running)
            found[t] = running
        return found

    def _values(self, features: Tensor, obs: np.ndarray, reward: Tensor, over: Tensor, done: Tensor) -> Tensor:
        """The critic's values (T, slots), after some steps towards the discounted returns of this play.

        A new one first goes to where the teacher's values of the raw observations (T * slots, *shape) are.
        """
        flat = features.flatten(0, 1)
        if self._critic is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self._critic = MLP(flat.shape[1], _CRITIC_WIDTHS, 1)
            expected = None if self._teacher is None else _expected(self._teacher, obs)
            if expected is not None:
                known = _returns(reward, over, done, torch.zeros_like(reward)).flatten()
                _fit(self._critic, flat, in_units_of(known, expected), self._generator)
        critic = self._critic
        with torch.no_grad():
            targets = _returns(reward, over, done, critic(flat).view_as(reward))
        _fit(critic, flat, targets.flatten(), self._generator)
        with torch.no_grad():
            return critic(flat).view_as(reward)

    def state(self) -> SavedState:
        """Where it is in its episodes, and what it has learned; its play of a round is not kept."""
        critic = {} if self._critic is None else under("critic", module_state(self._critic))
        chance = {"rng": generator_state(self._rng), "generator": generator_state(self._generator)}
        return {**under("track", self._track.state()), **critic, **chance}

    def restore(self, kept: SavedState) -> None:
        """Go to where `kept` was taken."""
        self._track.restore(below("track", kept))
        restore_generator(self._rng, kept["rng"])
        restore_generator(self._generator, kept["generator"])
        critic = below("critic", kept)
        if critic:
            self._critic = MLP(critic["trunk.0.weight"].shape[1], _CRITIC_WIDTHS, 1)
            restore_module(self._critic, critic)

    def __call__(self, progress: float) -> Tensor:
        """One batch of the round's play -> a scalar, weighed."""
        weight, seen = self._weight(progress, self._measured), self._experience
        if weight == 0.0 or seen is None or self._student is None:
            return torch.zeros(())
        policy = self._student.policy
        rows = torch.randint(len(seen.features), (self._practice.batch,), generator=self._generator)
        heads = policy.forward(seen.features[rows])
        now = log_likelihood(heads, seen.drawn[rows])
        loss = self._gain(now, seen.log_p[rows], seen.advantage[rows])
        if self._practice.entropy:
            loss = loss - self._practice.entropy * entropy(heads)
        return weight * loss.mean()


def _expected(teacher: LabelingActor, obs: np.ndarray) -> Tensor | None:
    """The teacher's values of raw observations (N, *shape), of states or of its best actions, where it has any."""
    heads = teacher.heads(obs)
    if heads.value is not None:
        return heads.value.clone()
    return None if heads.q is None else heads.q.amax(1)


def in_units_of(known: Tensor, expected: Tensor) -> Tensor:
    """The line in `expected` (N,) that is nearest to `known` (N,): other rewards' scale, and discount, are no error."""
    apart = expected - expected.mean()
    slope = (apart * known).mean() / apart.square().mean().clamp(min=1e-12)
    return known.mean() + slope.clamp(min=0.0) * apart


def _returns(reward: Tensor, over: Tensor, done: Tensor, values: Tensor) -> Tensor:
    """Discounted returns (T, slots), continued by the values where play is cut."""
    found, running = torch.zeros_like(reward), values[-1]
    for t in reversed(range(len(reward))):
        after = torch.where(over[t], 0.0, torch.where(done[t], values[t], running))
        running = reward[t] + GAMMA * after
        found[t] = running
    return found


def _fit(critic: MLP, features: Tensor, targets: Tensor, generator: torch.Generator) -> None:
    adam = torch.optim.Adam(critic.parameters(), lr=_CRITIC_LR, fused=True)
    for _ in range(_CRITIC_STEPS):
        rows = torch.randint(len(features), (256,), generator=generator)
        loss = F.mse_loss(critic(features[rows]).squeeze(1), targets[rows])
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
