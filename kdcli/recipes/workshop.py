"""Where candidates are made: one pool of labelled states, one clock, one reference for all of them."""

from __future__ import annotations

import time
from dataclasses import replace

from kdcli.agents.agent import Acts
from kdcli.choice import Choice
from kdcli.distillation.learner import Learner
from kdcli.distillation.loop import distill
from kdcli.distillation.objective import Objective
from kdcli.distillation.pool import Pool, watch
from kdcli.distillation.schedules import parse_schedule
from kdcli.distillation.student import default_losses, new_student
from kdcli.envs.play import open_vector, play, seeds_from
from kdcli.envs.seeds import first_seed
from kdcli.errors import UsageError
from kdcli.progress import Listener, Note
from kdcli.recipes.clock import Clock
from kdcli.recipes.config import CompressConfig
from kdcli.recipes.ladder import Rung
from kdcli.recipes.pace import Lesson, Pace, plan
from kdcli.recipes.reference import Reference, measure
from kdcli.recipes.search import Candidate

_SLOTS = 16
_FIRST_LABELS = 8_000
# The search stops rather than start a candidate with less than this share of what one gets.
_WORTHWHILE = 0.5
_CANDIDATES = 7


class Workshop:
    """Trains and screens candidates for a teacher until the time for the search is over."""

    def __init__(self, teacher: Acts, config: CompressConfig, clock: Clock, listener: Listener) -> None:
        if teacher.env is None:
            raise UsageError("the env is not known", "the checkpoint does not say where it was trained", "give --env")
        spec = replace(teacher.env, max_steps=config.max_steps or teacher.env.max_steps)
        self.teacher, self.config, self.clock, self._listen = teacher, config, clock, listener
        self.vector = open_vector(spec, teacher, _SLOTS)
        seeds = seeds_from(first_seed("screen", config.seed), config.episodes)
        self.reference: Reference = measure(teacher, self.vector, seeds, 0.04 * clock.budget)
        self._pool: Pool = watch(
            teacher, open_vector(spec, teacher, config.envs), _FIRST_LABELS, 1_000_000, config.seed
        )
        self.pace = Pace(self.reference.steps_per_second, self._updates_per_second(), self.reference.mean_length)
        self.final_episodes = self._final_episodes()
        self._deadline = clock.budget - self.final_seconds
        self._share = max(1.0, (self._deadline - clock.spent) / _CANDIDATES)

    def _updates_per_second(self) -> float:
        """Measured on a small student and thrown away."""
        losses = self.config.loss or default_losses(self.teacher)
        student = new_student(self.teacher, Choice.parse("mlp:16x16"), losses, self._pool.preprocess, 0)
        learner = Learner(student, Objective.parse(losses, "1"), parse_schedule("0.001"), 256, 0)
        learner.train(self._pool.buffer, 50)
        begin = time.perf_counter()
        learner.train(self._pool.buffer, 300)
        return 300 / (time.perf_counter() - begin)

    def _final_episodes(self) -> int:
        """As many as asked for, or as many as fit into 40% of the budget for four agents."""
        fit = self.pace.episodes(0.4 * self.clock.budget / self._players)
        if fit >= self.config.episodes:
            return self.config.episodes
        n = max(20, fit)
        self._listen(
            Note(f"{n} episodes instead of {self.config.episodes} in the verdict: more would not fit --budget")
        )
        return n

    @property
    def _players(self) -> int:
        return 4 if self.config.baselines else 3

    @property
    def final_seconds(self) -> float:
        """What export and the final bench will take."""
        return self._players * self.pace.play(self.final_episodes) + 8.0

    def attempt(self, index: int, rung: Rung, before: int) -> Candidate | None:
        """Train and screen a student of this size, or None when the time is over."""
        left = self._deadline - self.clock.spent
        seconds = min(self._share * (0.5 if index == 0 else 1.0 + 0.5 * before), left)
        if left < _WORTHWHILE * self._share:
            return None
        lesson = plan(self.pace, seconds - self.pace.play(len(self.reference.seeds)))
        return self._train(index, rung, lesson, self.config.seed + before)

    def _train(self, index: int, rung: Rung, lesson: Lesson, seed: int) -> Candidate:
        begin = self.clock.spent
        recipe = lesson.config(rung.student, self.config.loss, seed)
        judged = seeds_from(first_seed("select", seed), lesson.judged)
        done = distill(
            self.teacher,
            recipe,
            self._pool,
            lambda agent: float(play(agent, self.vector, judged).returns.mean()),
            self._listen,
        )
        screening = self.reference.judge(done.student, self.vector, self.config.min_score, self.config.confidence)
        self._listen(Note(_line(rung, screening.score, screening.low, screening.high, self.clock.spent - begin)))
        return Candidate(index, rung, done.student, screening, recipe.model_dump(mode="json"))


def _line(rung: Rung, score: float | None, low: float | None, high: float | None, seconds: float) -> str:
    numbers = "no score" if score is None else f"score {score:.3f} [{low:.3f}, {high:.3f}]"
    return f"{rung.student}, {rung.n_params:,} parameters: {numbers} in screening, {seconds:.0f} s"
