"""Where candidates are made: one clock, one reference, the same states of the teacher to begin with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocessor
from kdcli.agents.states import States
from kdcli.benchmarks.verdict import compare, episodes_needed
from kdcli.compression.baseline_returns import extended, measure
from kdcli.compression.budget import Throughput, TrainingBudget, plan
from kdcli.compression.clock import Clock
from kdcli.compression.config import CompressConfig
from kdcli.compression.input_selection import varying
from kdcli.compression.search import Candidate
from kdcli.compression.size_grid import Architecture
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import Learner, copy_agent
from kdcli.distillation.loop import GiveUp, Judge, Round, distill, fresh_student
from kdcli.distillation.objective import Objective
from kdcli.distillation.replay_pool import Labelled, ReplayPool, RolloutCollector
from kdcli.distillation.student import default_losses, input_shapes_of, new_student, resolve, rule_of
from kdcli.errors import UsageError
from kdcli.exporters.step import Parents
from kdcli.networks.feature_branches import is_image
from kdcli.progress import Listener, Note
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed

_SLOTS = 16
_FIRST_LABELS = 8_000
_CAPACITY = 1_000_000
# Whether an image is seen, and whether the teacher remembers -> a student on which gradient steps are timed.
_SMALL = {
    (False, False): "mlp:16x16",
    (True, False): "cnn:4x8x8,hidden=64",
    (False, True): "gru:16",
    (True, True): "gru:32,cnn=4x8x8",
}
# The search stops rather than start a candidate with less than this share of what one gets.
_WORTHWHILE = 0.5
_CANDIDATES = 7
# Screening plays at most so many times the episodes of a verdict, if that is quick.
_SCREENED = 4
_MOST_EPISODES = 1000
# Export, timing and writing.
_FIXED_SECONDS = 8.0
# A candidate that has less than this share of the wanted score half-way is given up.
_HOPELESS = 0.6
# A candidate is chosen for its screening, which flatters it: so many times the episodes that it says are enough, where
# there is time.
_FLATTERED = 2
# Screening goes on where the score is nearer to the wanted one than so many standard errors, and these are above this
# share of the teacher's gain, for at most this share of a candidate's time.
_UNCLEAR, _CLOSE, _SCREENING = 2.0, 0.01, 0.6
# Teacher, student and random policy play in a proof.
_PLAYERS = 3
# The last proof may overrun the budget by this share rather than play too few episodes.
_OVERRUN = 0.08


class CandidateTrainer:
    """Trains and screens candidates for a teacher until the time for the search is over."""

    def __init__(
        self, teacher: Actor, config: CompressConfig, clock: Clock, parents: Parents, listener: Listener
    ) -> None:
        if teacher.env is None:
            raise UsageError("the env is not known", "the checkpoint does not say where it was trained", "give --env")
        spec = replace(teacher.env, max_steps=config.max_steps or teacher.env.max_steps).within(config.envs)
        self.teacher, self.config, self.clock = teacher, config, clock
        self.parents, self.listener = parents, listener
        self.vector = open_vector(spec, teacher, _SLOTS)
        seeds = seeds_from(first_seed("screen", config.seed), _SCREENED * config.episodes)
        self._seeds, self.reference = seeds, measure(teacher, self.vector, seeds, 0.04 * clock.budget)
        if config.min_success and not self.reference.tells_success:
            why = f"no info at the end of an episode of {spec} has is_success"
            raise UsageError("--min-success asks for what the env does not tell", why, "leave --min-success out")
        self._collector = RolloutCollector(teacher, open_vector(spec, teacher, config.envs), config.seed)
        self._first: Labelled = self._collector.collect(None, 1.0, _FIRST_LABELS)
        self._sees = varying(teacher, self._first[0], config.seed, listener)
        self.throughput = Throughput(
            self.reference.steps_per_second, self._updates_per_second(), self.reference.mean_length
        )
        self.affordable = self._affordable()
        self._decides = self._could_show_the_teacher()
        self._deadline = clock.budget - self.seconds_for(self.affordable)
        self._share = max(1.0, (self._deadline - clock.spent) / _CANDIDATES)
        self._begun = False

    def _updates_per_second(self) -> float:
        """Measured on a small student and thrown away."""
        pool = self.pool()
        small = _SMALL[any(map(is_image, self.input_shapes)), bool(self.teacher.state_size)]
        config = resolve(DistillConfig(student=small, lr="0.001", loss=self.config.loss), self.teacher)
        student = fresh_student(self.teacher, config, config.losses, pool)
        learner = Learner(student, Objective.of(config, config.losses), config)
        learner.train(pool.buffer, 50)
        begin = time.perf_counter()
        learner.train(pool.buffer, 300)
        return 300 / (time.perf_counter() - begin)

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of what a student sees, side by side."""
        return input_shapes_of(self.pool().preprocess, rule_of(self.teacher))

    def pool(self, preprocess: Preprocessor | None = None) -> ReplayPool:
        """The teacher's own states, to which one candidate adds its own: those of another, and all the more of one
        that fails, would take up what little a small student can learn.
        """
        pool = ReplayPool(self.teacher, self._first, _CAPACITY, self._collector, preprocess or self._sees)
        pool.count_anew()
        return pool

    def untrained(self, architecture: Architecture) -> Agent:
        """A student of this size that has learned nothing: as large and as fast as one that has."""
        losses, config = self.config.loss or default_losses(self.teacher), DistillConfig(student=architecture.student)
        return new_student(self.teacher, config, losses, self.pool().preprocess)

    def states(self, n: int) -> States:
        """The first `n` states in which the teacher was watched."""
        return States(self._first[0][:n], "rollout")

    def _affordable(self) -> int:
        """Episodes of the verdict that fit into a third of the budget; those asked for, if a little more will do."""
        wanted, fit = self.config.episodes, self.throughput.episodes(self.clock.budget / 3 / _PLAYERS)
        if fit < wanted <= 1.5 * fit:
            return wanted
        if fit < wanted:
            self.listener(
                Note(f"at most {max(20, fit)} episodes instead of {wanted} in the verdict: --budget is short")
            )
        return max(20, min(fit, _MOST_EPISODES))

    def _could_show_the_teacher(self) -> bool:
        """Whether a student as good as the teacher itself would hold in the episodes there is time for.

        Where it would not, the score of the screening must do: no other size would be easier to prove.
        """
        teacher, chance = self.reference.teacher, self.reference.random
        needed = episodes_needed(teacher, teacher, chance, self.config.min_score, self.config.confidence)
        return needed is not None and needed <= self.affordable

    def seconds_for(self, episodes: int) -> float:
        """What export and a proof over so many episodes will take."""
        return _PLAYERS * self.throughput.play(episodes) + _FIXED_SECONDS

    def episodes_for(self, candidate: Candidate) -> int:
        """The most episodes of its proof, planned from the screening before any of them is played, and from the time
        left.
        """
        wanted = max(self.config.episodes, _FLATTERED * (candidate.needed or 0))
        left = self.clock.left + _OVERRUN * self.clock.budget - _FIXED_SECONDS
        return max(20, min(wanted, self.throughput.episodes(left / _PLAYERS)))

    def affords(self, candidate: Candidate) -> bool:
        """Whether there is time for as many episodes as the screening says are enough."""
        return self.clock.left > self.seconds_for(candidate.needed or self.config.episodes)

    def proof_took(self, seconds: float) -> None:
        """Plan with what a proof took: candidates are made as long as there is time for another proof like it."""
        self._deadline = max(self._deadline, self.clock.budget - seconds - _FIXED_SECONDS)

    def attempt(self, index: int, architecture: Architecture, before: int) -> Candidate | None:
        """Train and screen a student of this size, or None when the time is over; one is made however short it is."""
        left = self._deadline - self.clock.spent
        seconds = min(self._share * (0.5 if index == 0 else 1.0 + 0.5 * before), left)
        if left < _WORTHWHILE * self._share and self._begun:
            return None
        self._begun = True
        training_config = plan(self.throughput, seconds - self.throughput.play(len(self.reference.seeds)))
        return self._train(index, architecture, training_config, self.config.seed + before)

    def _train(self, index: int, architecture: Architecture, training_config: TrainingBudget, seed: int) -> Candidate:
        begin = self.clock.spent
        recipe = training_config.config(architecture.student, self.config.loss, seed)
        done = distill(self.teacher, recipe, self.pool(), self.judge(recipe), self.listener, self._hopeless_at(recipe))
        return self.screened(index, architecture, done.student, recipe, begin)

    def judge(self, recipe: DistillConfig) -> Judge:
        """The mean return on the episodes by which a round is chosen."""
        judged = seeds_from(first_seed("select", recipe.seed), recipe.episodes)
        return lambda agent: float(play(agent, self.vector, judged).returns.mean())

    def has_time(self, reserved: float = 0.0) -> bool:
        """Whether another candidate would get a share of the time that is worth it, so many seconds being reserved."""
        return self._deadline - self.clock.spent - reserved > _WORTHWHILE * self._share

    def training_config(self, index: int) -> DistillConfig:
        """What a candidate that exists already gets to recover: the share of one."""
        counts = plan(self.throughput, self._share - self.throughput.play(len(self.reference.seeds)))
        return counts.config("as it is", self.config.loss, self.config.seed + index)

    def recovered(self, agent: Agent, recipe: DistillConfig) -> Agent:
        """The agent after a distillation that begins with it."""
        student = copy_agent(agent)
        student.policy.requires_grad_(True)
        pool = self.pool(agent.preprocess)
        return distill(self.teacher, recipe, pool, self.judge(recipe), self.listener, None, student).student

    def _hopeless_at(self, recipe: DistillConfig) -> GiveUp:
        """Whether half of the rounds came nowhere near the score that is asked for."""
        return lambda rounds: len(rounds) >= recipe.rounds // 2 and self._hopeless(rounds)

    def _hopeless(self, rounds: Sequence[Round]) -> bool:
        """Whether the rounds so far came nowhere near the score that is asked for."""
        best = max(r.mean_return for r in rounds)
        chance, teacher = self.reference.random.mean(), self.reference.teacher.mean()
        return (best - chance) < _HOPELESS * self.config.min_score * (teacher - chance)

    def screened(
        self, index: int, architecture: Architecture, student: Agent, recipe: DistillConfig, begin: float
    ) -> Candidate:
        """Compare with the teacher on the screening episodes, which no training saw."""
        start = time.perf_counter()
        seen = play(student, self.vector, self.reference.seeds)
        self.throughput = replace(self.throughput, steps=float(seen.lengths.sum()) / (time.perf_counter() - start))
        while self._is_unclear(seen.returns) and self._can_extend(time.perf_counter() - start):
            played, more = len(self.reference.seeds), min(2 * len(self.reference.seeds), len(self._seeds))
            self.reference = extended(self.reference, self.teacher, self.vector, self._seeds[:more])
            seen = seen.followed_by(play(student, self.vector, self._seeds[played:more]))
        arms = seen.returns, self.reference.teacher, self.reference.random
        settings = self.config.min_score, self.config.confidence
        screening, needed = compare(*arms, *settings), episodes_needed(*arms, *settings)
        above = screening.score is not None and screening.score > self.config.min_score
        succeeds = not self.config.min_success or float(np.mean(seen.success)) >= self.config.min_success
        promising = above and succeeds and (not self._decides or (needed is not None and needed <= self.affordable))
        found = Candidate(
            index,
            architecture,
            student,
            screening,
            needed if above else None,
            promising,
            recipe,
            self.clock.spent - begin,
        )
        self.listener(Note(_line(found)))
        return found

    def _is_unclear(self, student: np.ndarray) -> bool:
        """Whether the score could as well be on the other side of the wanted one."""
        reference, wanted = self.reference, self.config.min_score
        above = student - wanted * reference.teacher - (1 - wanted) * reference.random
        gain = (reference.teacher - reference.random).mean()
        error = above.std(ddof=1) / len(above) ** 0.5
        return bool(abs(above.mean()) < _UNCLEAR * error and error > _CLOSE * gain)

    def _can_extend(self, taken: float) -> bool:
        """Whether there are seeds and time to screen on as many again."""
        further = _PLAYERS * self.throughput.play(len(self.reference.seeds))
        return len(self.reference.seeds) < len(self._seeds) and taken + further < _SCREENING * self._share


def _line(found: Candidate) -> str:
    architecture, seen = found.architecture, found.screening
    numbers = "no score" if seen.score is None else f"score {seen.score:.3f} [{seen.low:.3f}, {seen.high:.3f}]"
    word = "promising" if found.promising else "not enough"
    size = f"{architecture.student}, {architecture.n_params:,} parameters"
    return f"{size}: {numbers} in screening, {word} ({found.seconds:.0f} s)"
