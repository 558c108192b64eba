"""Many teachers seen as one: what they say together is said as one agent says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.actor import no_memory
from kdcli.agents.agent import Agent
from kdcli.agents.distributions import sample
from kdcli.agents.heads import Heads
from kdcli.agents.observation import JointPreprocess, Preprocess, Preprocessor, plain
from kdcli.agents.policy import Signal
from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.registry import Registry
from kdcli.spec import Part, Space, same_space

COMBINATIONS = Registry(
    "combination",
    {
        "mean": ("kdcli.agents.ensemble:mean", "the mean of their probabilities, Q-values or actions"),
        "weighted": ("kdcli.agents.ensemble:mean", "their mean by weights, in the order of teachers: weighted:0.7+0.3"),
        "value": ("kdcli.agents.ensemble:by_value", "in each state the one that expects the largest return there"),
        "confidence": ("kdcli.agents.ensemble:by_confidence", "in each state the one that is surest of its action"),
    },
)
# What each member says of B states, its weight -> the share of each member (members, B), summing to 1 over them.
Shares = Callable[[Sequence[Heads], Tensor], Tensor]


class Ensemble:
    """Teachers of one env as one agent that teaches and plays; it cannot be exported, only distilled.

    Discrete: probabilities, or Q-values where all have those, are averaged by the members' shares. Continuous: actions
    in units of the bounds are averaged. `weights` are the members' a priori, those in the text of `combination`
    (`weighted:0.7+0.3`), or all alike without them.

    Raises:
        UsageError: no members, members of different spaces, or weights that do not fit.
    """

    def __init__(self, members: Sequence[Agent], combination: str = "mean", weights: Sequence[float] = ()) -> None:
        if not members:
            raise UsageError("an ensemble has no members", "no teacher is given", "name at least one")
        self.members, first = tuple(members), members[0]
        for member in members:
            if not (same_space(member.observation, first.observation) and same_space(member.action, first.action)):
                why = f"{member.name} maps {member.observation} to {member.action}"
                raise UsageError("teachers of an ensemble play one env", why, "leave it out")
        choice = Choice.parse(combination).only()
        self._shares: Shares = COMBINATIONS.load(choice.name)
        self.weights = _weights(choice, weights, len(members))
        self.name, self.env = "+".join(member.name for member in members), first.env
        self.state_size = sum(member.state_size for member in members)

    @property
    def observation(self) -> Space:
        """The space of one raw observation."""
        return self.members[0].observation

    @property
    def action(self) -> Part:
        """The space of one action."""
        return self.members[0].action

    @property
    def rule(self) -> ActionRule:
        """How what it says becomes an action: that of its members; of continuous ones, clipping to the bounds."""
        rule = self.members[0].rule
        return ActionRule(rule.space, "clip") if rule.continuous else rule

    @property
    def signal(self) -> Signal:
        """What its outputs mean."""
        if self.rule.continuous:
            return "mean"
        return "q" if all(member.signal == "q" for member in self.members) else "logits"

    @property
    def preprocess(self) -> Preprocessor:
        """How a student may see the world: as the first member does, where all see it alike, else as it is."""
        first = self.members[0].preprocess
        return first if all(_alike(member.preprocess, first) for member in self.members) else plain(self.observation)

    @torch.inference_mode()
    def heads(self, obs: np.ndarray, state: np.ndarray | None = None) -> Heads:
        """What they say together of raw observations (B, *shape), with their states (B, S) side by side."""
        sizes = np.cumsum([member.state_size for member in self.members])[:-1]
        states = [None] * len(self.members) if state is None else np.split(state, sizes, axis=1)
        said = [
            member.heads(obs, np.ascontiguousarray(own) if member.state_size and own is not None else None)
            for member, own in zip(self.members, states, strict=True)
        ]
        after = [heads.state for heads in said if heads.state is not None]
        shares = self._shares(said, self.weights)
        together = self._actions(said, shares) if self.rule.continuous else self._choices(said, shares)
        found = together.having({"members": self._apart(said), "shares": shares.T.contiguous()})
        return found.having({"state": torch.cat(after, 1)}) if after else found

    def _apart(self, said: Sequence[Heads]) -> Tensor:
        """What each member says for itself (B, M, A): see `Heads.members`."""
        if self.rule.continuous:
            return torch.stack([self.rule.unit(action) for action in self._decoded(said)], 1)
        scores = [heads.scores() for heads in said]
        if self.signal == "q" or self.rule.bits:
            return torch.stack(scores, 1)
        return torch.stack([_log_probabilities(each, self.rule) for each in scores], 1)

    def _actions(self, said: Sequence[Heads], shares: Tensor) -> Heads:
        """The mean of env-ready actions; where they lie is theirs to say, how far they scatter is not known."""
        mean = _averaged(self._decoded(said), shares)
        return Heads(mean=mean, action=self.rule.unit(mean), value=_value(said, shares))

    def _decoded(self, said: Sequence[Heads]) -> list[Tensor]:
        """The env-ready continuous action of each member (B, A)."""
        return [m.rule.decode(h.scores()).flatten(1).float() for m, h in zip(self.members, said, strict=True)]

    def _choices(self, said: Sequence[Heads], shares: Tensor) -> Heads:
        rule = self.rule
        about: dict[str, Any] = {"groups": rule.groups, "bits": rule.bits, "value": _value(said, shares)}
        if self.signal == "q":
            return Heads(q=_averaged([heads.scores() for heads in said], shares), **about)
        if rule.bits:
            yes = _averaged([heads.scores().sigmoid() for heads in said], shares)
            return Heads(logits=torch.logit(yes, 1e-7), **about)
        log_p = [_log_probabilities(heads.scores(), rule) for heads in said]
        return Heads(logits=torch.logsumexp(torch.stack(log_p) + shares.log()[:, :, None], 0), **about)

    def decode(self, heads: Heads) -> np.ndarray:
        """The env-ready deterministic actions (B, *shape) of what was said."""
        return self.rule.decode(heads.scores()).numpy().astype(self.action.dtype, copy=False)

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Raw observations (B, *shape) -> env-ready actions; deterministic without `rng`, else sampled.

        Raises:
            UsageError: a member has memory: use `step`.
        """
        no_memory(self)
        return self.step(obs, np.zeros((len(obs), 0), np.float32), rng)[0]

    @torch.inference_mode()
    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `act`, with the states before (B, S); returns those after, too."""
        heads = self.heads(obs, state)
        after = state if heads.state is None else heads.state.numpy()
        if rng is None:
            return self.decode(heads), after
        return sample(heads, self.rule, rng).numpy().astype(self.action.dtype, copy=False), after


def _weights(choice: Choice, given: Sequence[float], n: int) -> Tensor:
    """The weights of `n` members (n,), summing to 1: those given, or in the text of the choice, or all alike."""
    try:
        texts = choice.value.split("+") if choice.value else []
        found = torch.tensor([float(w) for w in given or texts] or [1.0] * (0 if choice.name == "weighted" else n))
    except ValueError:
        found = torch.zeros(0)
    if len(found) == n and bool(found.isfinite().all() and (found >= 0).all()) and float(found.sum()) > 0:
        return found / found.sum()
    why = f"given: {', '.join(map(str, given)) or choice.value or 'none'}"
    raise UsageError(f"{n} teachers need as many weights", why, f"e.g. {choice.name}:{'+'.join(['0.5'] * n)}")


def _alike(one: Preprocessor, other: Preprocessor) -> bool:
    """Whether two agents see the world through the same numbers."""
    if isinstance(one, JointPreprocess) != isinstance(other, JointPreprocess):
        return False
    return all(_same_part(part, other.parts[name]) for name, part in one.parts.items())


def _same_part(one: Preprocess, other: Preprocess) -> bool:
    ways = [(part.image, part.channels_last, part.normalizer is None, part.columns) for part in (one, other)]
    if ways[0] != ways[1] or one.normalizer is None or other.normalizer is None:
        return ways[0] == ways[1]
    a, b = one.normalizer, other.normalizer
    return a.clip == b.clip and np.array_equal(a.mean, b.mean) and np.array_equal(a.scale, b.scale)


def _averaged(values: Sequence[Tensor], shares: Tensor) -> Tensor:
    """The mean of values (B, A) by each member's share (members, B)."""
    return (torch.stack(list(values)) * shares[:, :, None]).sum(0)


def _value(said: Sequence[Heads], shares: Tensor) -> Tensor | None:
    values = [heads.value for heads in said if heads.value is not None]
    return (torch.stack(values) * shares).sum(0) if len(values) == len(said) else None


def _log_probabilities(scores: Tensor, rule: ActionRule) -> Tensor:
    """Log-probabilities (B, A) of each choice, side by side."""
    return torch.cat([F.log_softmax(part, 1) for part in scores.split(list(rule.groups), 1)], 1)


def mean(said: Sequence[Heads], weights: Tensor) -> Tensor:
    """To everyone what its weight is, in all states."""
    return weights[:, None].expand(len(said), len(said[0].scores()))


def _best(scores: Sequence[Tensor], weights: Tensor) -> Tensor:
    """All to the one with the largest score (B,) in a state, among those with any weight."""
    table = torch.where(weights[:, None] > 0, torch.stack(list(scores)), -torch.inf)
    return F.one_hot(table.argmax(0), len(scores)).T.float()


def by_value(said: Sequence[Heads], weights: Tensor) -> Tensor:
    """All to the one that expects the largest return: its state value, or its largest Q-value.

    Raises:
        UsageError: one says neither.
    """
    scores = [heads.value if heads.value is not None else heads.q for heads in said]
    if any(score is None for score in scores):
        what = "teachers are chosen by value, and one of them has none"
        raise UsageError(what, "neither a critic of states nor Q-values", "choose confidence, or mean")
    return _best([score if score.ndim == 1 else score.amax(1) for score in scores if score is not None], weights)


def by_confidence(said: Sequence[Heads], weights: Tensor) -> Tensor:
    """All to the surest: least entropy of its choices, or least spread of its actions; one without a spread is sure."""
    return _best([_sureness(heads) for heads in said], weights)


def _sureness(heads: Heads) -> Tensor:
    if heads.mean is not None:
        n = len(heads.mean)
        return torch.zeros(n) if heads.log_std is None else -heads.log_std.sum(1)
    scores = heads.scores()
    if heads.bits:
        p = scores.sigmoid()
        return -(torch.special.entr(p) + torch.special.entr(1 - p)).sum(1)
    parts = scores.split(list(heads.groups), 1) if heads.groups else (scores,)
    return -torch.stack([torch.special.entr(part.softmax(1)).sum(1) for part in parts]).sum(0)
