"""What can be said about a rollout before it begins."""

from __future__ import annotations

from kdcli.applies import Applies, given_fields, refuse_idle
from kdcli.errors import UsageError, option
from kdcli.rollouts.config import RolloutConfig

RULES: tuple[Applies[RolloutConfig], ...] = (
    Applies("beta", lambda c: c.policy == "mixed", f"it is a share of {option('policy', 'mixed')}"),
    Applies("sampled", lambda c: c.policy in ("teacher", "mixed"), "the teacher does not act, whose actions are drawn"),
)


def check_rollout(config: RolloutConfig, student: bool | None = None) -> None:
    """Say all that can be said of the options, and of whether a student is given (None: not known).

    Raises:
        UsageError: an option would change nothing, a student has no part, or a part has no student.
    """
    refuse_idle(given_fields(config), RULES, config)
    plays, policy = config.policy in ("student", "mixed"), option("policy", config.policy)
    if plays and student is False:
        raise UsageError(f"{policy} needs a student", "none is given", f"name one with {option('student')}")
    if student and not plays:
        fix = f"give {option('policy', 'student')} or mixed, or leave it out"
        raise UsageError(f"{option('student')} would change nothing", f"the student has no part in {policy}", fix)
