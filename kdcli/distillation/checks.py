"""What can be said about a distillation before it begins: texts that cannot be read, options without an effect, and
parts that do not go together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.ensemble import COMBINATIONS
from kdcli.agents.labels import label, label_step
from kdcli.applies import Applies, given_fields, refuse_idle
from kdcli.choice import Choice
from kdcli.distillation import REINFORCEMENTS, REPLAYS
from kdcli.distillation.augmentation import parse_augmentation
from kdcli.distillation.buffer import BEGINS
from kdcli.distillation.config import ChainConfig, DistillConfig, TasksConfig
from kdcli.distillation.curriculum import stages_of
from kdcli.distillation.data_modes import share_of_teacher
from kdcli.distillation.loop import fresh_student, learner_for
from kdcli.distillation.losses.facts import LossFacts
from kdcli.distillation.objective import Objective, facts_of_term, wanted
from kdcli.distillation.penalties import parse_penalty
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.schedules import parse_schedule
from kdcli.distillation.student import default_losses, resolve, rule_of
from kdcli.distillation.term_weights import parse_weight
from kdcli.errors import UsageError, option
from kdcli.networks import REMEMBERING, check_choice
from kdcli.spec import MASK, EnvSpec, parts, zeros

_ANY = ("nll",)  # stands for the default, which depends on the teacher


@dataclass(frozen=True)
class Circumstances:
    """What is known of a distillation before it begins; `dataset` and `teacher` are None where that is not known."""

    config: DistillConfig
    chain: ChainConfig = field(default_factory=ChainConfig)
    n_teachers: int = 1
    dataset: bool | None = None
    teacher: Actor | None = None

    @property
    def losses(self) -> list[LossFacts] | None:
        """What the losses declare; by default they depend on the teacher."""
        terms = self.config.loss or (default_losses(self.teacher) if self.teacher else ())
        return [facts_of_term(text) for text in terms] or None

    @property
    def remembers(self) -> bool | None:
        """Whether the student has memory; by default it has where the teacher does."""
        if not self.config.student and self.teacher is None:
            return None
        text = resolve(self.config, self.teacher).student if self.teacher else self.config.student
        return Choice.parse(text).name in REMEMBERING

    @property
    def grows(self) -> bool:
        """Whether states are added after the first round."""
        return self.config.data != "offline" and self.config.rounds > 1

    @property
    def collects(self) -> bool | None:
        """Whether anyone plays for states to learn from."""
        if self.grows or self.config.data == "offline":
            return self.grows
        return None if self.dataset is None else not self.dataset

    @property
    def plays(self) -> bool | None:
        """Whether anyone plays for states or for rewards."""
        return True if self.config.reinforce else self.collects


def _tempered(known: Circumstances) -> bool | None:
    return None if known.losses is None else any(facts.tempered for facts in known.losses)


def _without_memory(known: Circumstances) -> bool | None:
    return None if known.remembers is None else not known.remembers


_NOT_PLAYED = "nobody plays for states: they are recorded ones"
_ONE_ROUND = "states are added after the first round alone, and not to recorded ones that are learned offline"
RULES: tuple[Applies[Circumstances], ...] = (
    Applies("teachers combine", lambda k: k.n_teachers > 1, "there is one teacher"),
    Applies("combine", lambda k: k.chain.teachers == "combined", "the teachers are not seen as one"),
    Applies("via", lambda k: k.chain.teachers != "in-turn", "teachers in turn have one student"),
    Applies("generations", lambda k: k.chain.teachers != "in-turn", "teachers in turn have one student"),
    Applies(
        "reinforce", lambda k: k.chain.teachers != "in-turn", "a student of teachers in turn learns from them alone"
    ),
    Applies("reinforce_steps reinforce_entropy", lambda k: bool(k.config.reinforce), "no rewards are learned from"),
    Applies("reinforce", _without_memory, "a student with memory does not learn from rewards"),
    Applies("tau", _tempered, "no chosen loss has a temperature", f"add one that has, such as {option('loss', 'kl')}"),
    Applies("balance", lambda k: len(k.config.loss) > 1, "there is one loss term", f"add another {option('loss')}"),
    Applies("augment", _without_memory, "a student with memory learns from whole episodes, moved states are in none"),
    Applies("replay", _without_memory, "a student with memory learns from whole episodes, which are drawn alike"),
    Applies("data", lambda k: k.grows or k.config.data == "offline", _ONE_ROUND),
    Applies("beta", lambda k: k.config.data == "dagger", f"it is a share of {option('data', 'dagger')}"),
    Applies("beta augment", lambda k: k.grows, _ONE_ROUND),
    Applies("curriculum noise", lambda k: k.collects, _NOT_PLAYED),
    Applies("envs", lambda k: k.plays, _NOT_PLAYED),
    Applies(
        "window", lambda k: k.remembers, "the student has no memory", f"give it one: {option('student', 'gru:32')}"
    ),
)


def check_distillation(
    config: DistillConfig,
    chain: ChainConfig | None = None,
    *,
    n_teachers: int = 1,
    dataset: bool | None = None,
    teacher: Actor | None = None,
    given: Collection[str] | None = None,
) -> None:
    """Say all that can be said of the options.

    Args:
        config: How a student learns.
        chain: From whom in which order.
        n_teachers: How many teachers there are.
        dataset: Whether recorded states are given; None where that is not known.
        teacher: The teacher, where it is there already, several as one.
        given: The options that must have an effect; those that were given, where nothing else is said.

    Raises:
        UsageError: a text names nothing or cannot be read, options exclude each other, or one would change nothing.
    """
    chain = chain or ChainConfig()
    _read(config, chain)
    if n_teachers < 1:
        raise UsageError("no teacher is given", "there is nobody to learn from", "name at least one")
    known = Circumstances(config, chain, n_teachers, dataset, teacher)
    refuse_idle(given_fields(config, chain) if given is None else given, RULES, known)
    if dataset and not chain.plain:
        what = f"{option('dataset')} is not for chains"
        raise UsageError(what, "every link collects states of its own", f"leave {option('dataset')} out")
    if dataset is False and config.data == "offline":
        what, fix = f"{option('data', 'offline')} needs a dataset", f"name one with {option('dataset')}"
        raise UsageError(what, "there is nothing to learn from", fix)
    if chain.teachers == "in-turn" and n_teachers > config.rounds:
        why = f"{n_teachers} teachers, {config.rounds} rounds"
        raise UsageError("each teacher needs a round", why, f"give more {option('rounds')}, or fewer teachers")


_TOGETHER = "the tasks are learned at once"
# By how tasks are learned, and how many they are.
TASK_RULES: tuple[Applies[tuple[TasksConfig, int]], ...] = (
    Applies("order share keep", lambda t: t[1] > 1, "there is one task"),
    Applies("share keep", lambda t: t[0].order == "in-turn", _TOGETHER, f"give {option('order', 'in-turn')}"),
    Applies("combine", lambda _: False, "each task has one teacher"),
    Applies("reinforce", lambda _: False, "students of several tasks learn from teachers alone"),
)


def check_tasks(config: DistillConfig, tasks: TasksConfig, *, n_teachers: int, teachers: Sequence[Actor] = ()) -> None:
    """Say all that can be said of the options of several tasks.

    Raises:
        UsageError: a text names nothing or cannot be read, options exclude each other, or one would change nothing.
    """
    if not n_teachers:
        raise UsageError("no task is given", "there is nothing to learn", "name one teacher for each task")
    refuse_idle(given_fields(config, tasks), TASK_RULES, (tasks, n_teachers))
    for text in tasks.keep:
        parse_penalty(text)
    if config.data == "offline":
        what, why = f"{option('data', 'offline')} is not for tasks", "each of them collects states of its own"
        raise UsageError(what, why, f"give another {option('data')}")
    for teacher in teachers or (None,):
        check_distillation(config, n_teachers=n_teachers, dataset=False, teacher=teacher)


def _read(config: DistillConfig, chain: ChainConfig) -> None:
    """Read every text."""
    for student in (config.student, *chain.via):
        if student:
            check_choice(student)
    Objective.of(config, config.loss or _ANY)
    if config.lr:
        parse_schedule(config.lr)
    share_of_teacher(config)
    parse_weight(config.beta)
    parse_augmentation(config.augment)
    stages_of(config.curriculum, EnvSpec(""))
    COMBINATIONS.load(Choice.parse(config.combine).only().name)
    REPLAYS.load(Choice.parse(config.replay).name)
    for text in config.reinforce:
        name, _, weight = text.partition("@")
        REINFORCEMENTS.load(name)
        parse_weight(weight or "1")


def rehearse(teacher: Actor, config: DistillConfig) -> Agent:
    """Take two made-up states through teacher, student and losses once; the student, which has learned nothing.

    What they cannot do together shows here, before anyone plays.

    Raises:
        UsageError: a loss that the teacher cannot feed, layers it does not have, states that cannot be moved.
    """
    resolved = resolve(config, teacher)
    continuous = rule_of(teacher).continuous
    for text in resolved.losses:
        if facts_of_term(text).of == ("choices" if continuous else "continuous"):
            what = f"{option('loss', text)} compares {'choices' if continuous else 'continuous actions'}"
            raise UsageError(what, f"the actions of {teacher.name} are {'continuous' if continuous else 'choices'}", "")
    obs, inside = zeros(teacher.observation, 2), wanted(resolved.losses)
    if MASK in parts(teacher.observation):
        obs[MASK] = 1
    if augmentation := parse_augmentation(config.augment):
        augmentation(teacher, obs, 2, np.random.default_rng(0))
    if teacher.state_size:
        labels, _ = label_step(teacher, obs, np.zeros((2, teacher.state_size), np.float32), inside)
    else:
        labels = label(teacher, obs, inside)
    pool = ReplayPool(teacher, (obs, {**labels, BEGINS: np.ones(2, bool)}), 2)
    student = fresh_student(teacher, resolved, resolved.losses, pool)
    learner = learner_for(student, Objective.of(resolved, resolved.losses), resolved, pool)
    next(learner.losses(pool.buffer, 1, (0.0, 1.0)))
    return learner.snapshot()
