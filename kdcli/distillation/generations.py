"""Students that teach the next, and teachers that follow each other: chains of distillations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kdcli.agents.actor import Actor
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import Distilled, Judge, Round, fresh_student, learner_for, teach
from kdcli.distillation.objective import Objective
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.student import resolve
from kdcli.errors import UsageError, option
from kdcli.progress import Listener, silent

# A teacher, and how its student sees the world where that is settled -> the states to learn from, labelled by it.
Gather = Callable[[Actor, Preprocessor | None], ReplayPool]
# A teacher and a config -> its student.
Learn = Callable[[Actor, DistillConfig], Distilled]
_APART = 1000  # seeds of one rung from those of the next


def assistant_chain(
    teacher: Actor, students: Sequence[str], config: DistillConfig, learn: Learn
) -> tuple[Distilled, ...]:
    """A student of each architecture, taught by the one before it, the first by `teacher`; `config` is that of each.

    Shrinking architectures are teacher assistants (Mirzadeh et al. 2020), the same one again and again are born-again
    generations (Furlanello et al. 2018), which begin from other weights.

    Raises:
        UsageError: no architecture, or as `distill`.
    """
    if not students:
        raise UsageError("a chain has no student", "none is named", "name at least one, e.g. mlp:32x32")
    done: list[Distilled] = []
    for index, student in enumerate(students):
        own = config.model_copy(update={"student": student, "seed": config.seed + _APART * index})
        done.append(learn(teacher, own))
        teacher = done[-1].student
    return tuple(done)


def distill_in_sequence(
    teachers: Sequence[Actor], config: DistillConfig, gather: Gather, judge: Judge, listener: Listener = silent
) -> Distilled:
    """One student that is taught by each teacher in turn, as checkpoints of one training, weak to strong.

    Jin et al. 2019 (Knowledge Distillation via Route Constrained Optimization): what is early learned is easier to
    follow. Labels, updates and rounds of `config` are in all; the student is of the last teacher's best round.

    Raises:
        UsageError: no teacher, more teachers than rounds, or as `distill`.
    """
    if not 0 < len(teachers) <= config.rounds:
        why = f"{len(teachers)} teachers, {config.rounds} rounds"
        raise UsageError("each teacher needs a round", why, f"give more {option('rounds')}, or fewer teachers")
    # What the first teacher sees decides how fast it is learned, what the last one gives decides by which losses.
    own = resolve(_shared(resolve(config, teachers[0]), len(teachers)), teachers[-1])
    pool = gather(teachers[0], None)
    student = fresh_student(teachers[-1], own, own.losses, pool)
    rounds: list[Round] = []
    for index, teacher in enumerate(teachers):
        pool = pool if index == 0 else gather(teacher, pool.preprocess)
        learner = learner_for(student, Objective.of(own, own.losses), own, pool)
        best, seen = teach(learner, own, pool, judge, listener)
        student = replace(best, policy=best.policy.requires_grad_(True))
        rounds += seen
    return Distilled(best, own.losses, tuple(rounds))


def _shared(config: DistillConfig, n: int) -> DistillConfig:
    """The part of one of `n` teachers."""
    parts = {name: getattr(config, name) // n for name in ("labels", "updates", "rounds")}
    return config.model_copy(update=parts)
