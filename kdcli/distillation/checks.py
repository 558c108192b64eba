"""What can be said about options before anything runs."""

from __future__ import annotations

from kdcli.choice import Choice
from kdcli.distillation import REINFORCEMENTS, REPLAYS
from kdcli.distillation.augmentation import parse_augmentation
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.data_modes import share_of_teacher
from kdcli.distillation.objective import Objective
from kdcli.distillation.schedules import parse_schedule
from kdcli.distillation.term_weights import parse_weight
from kdcli.networks import NETWORKS

_ANY = ("nll",)  # stands for the default, which depends on the teacher


def check_distillation(config: DistillConfig) -> None:
    """Read every text in `config`.

    Raises:
        UsageError: one names nothing, or cannot be read.
    """
    if config.student:
        NETWORKS.load(Choice.parse(config.student).name)
    Objective.of(config, config.loss or _ANY)
    if config.lr:
        parse_schedule(config.lr)
    share_of_teacher(config)
    parse_augmentation(config.augment)
    REPLAYS.load(Choice.parse(config.replay).name)
    for text in config.reinforce:
        name, _, weight = text.partition("@")
        REINFORCEMENTS.load(name)
        parse_weight(weight or "1")
