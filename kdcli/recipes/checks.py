"""What can be said about options before anything runs."""

from __future__ import annotations

from kdcli.choice import Choice
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import beta_schedule
from kdcli.distillation.objective import Objective
from kdcli.distillation.schedules import parse_schedule
from kdcli.networks import NETWORKS

_ANY = ("nll",)  # stands for the default, which depends on the teacher


def check_distillation(config: DistillConfig) -> None:
    """Read every text in `config`.

    Raises:
        UsageError: one names nothing, or cannot be read.
    """
    NETWORKS.load(Choice.parse(config.student).name)
    Objective.parse(config.loss or _ANY, config.tau, config.weigh)
    parse_schedule(config.lr)
    beta_schedule(config)
