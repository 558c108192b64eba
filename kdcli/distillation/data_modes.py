"""Who acts while states are collected, round by round: the teacher's share, and the noise on what is done."""

from __future__ import annotations

import numpy as np

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.distillation import DATA
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.term_weights import Weight, parse_weight
from kdcli.rollouts.behavior_policy import Noise


def teacher(config: DistillConfig) -> Weight:
    """The teacher alone."""
    return parse_weight("1")


def student(config: DistillConfig) -> Weight:
    """The student alone."""
    return parse_weight("0")


def dagger(config: DistillConfig) -> Weight:
    """The teacher in a share `beta` of the steps, the student in the others. Ross et al. 2011, algorithm 3.1."""
    return parse_weight(config.beta)


def share_of_teacher(config: DistillConfig) -> Weight:
    """The teacher's share of the steps, by progress over the rounds and by what is measured."""
    found: Weight = DATA.load(config.data)(config)
    return found


def errors(student: Heads, teacher: Heads, rule: ActionRule) -> Noise:
    """How far a student is from its teacher on the same states: the noise that makes the teacher play as badly.

    Of continuous actions the root mean square in each dimension, in half-ranges, (*shape); of choices the share that
    is another. Laskey et al. 2017 (DART), section IV.
    """
    ours = rule.taught(rule.decode(student.scores()))
    if rule.continuous:
        assert ours.action is not None
        assert teacher.action is not None
        gap = ours.action - teacher.action.clamp(-1.0, 1.0) if rule.bounded else ours.action - teacher.action
        return np.asarray(gap.square().mean(0).sqrt().numpy()).reshape(rule.space.shape)
    assert ours.choice is not None
    assert teacher.choice is not None
    return float((ours.choice != teacher.choice).float().mean())
