"""When an option has an effect: each stage states it as a table, and no option is accepted and ignored.

RULES = (Applies("beta", lambda c: c.policy == "mixed", "the teacher acts in every step, or in none"),)
refuse_idle(given_fields(config), RULES, config)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from kdcli.errors import UsageError, option

Facts = TypeVar("Facts", contravariant=True)
_OFF = (None, False, (), "")


@dataclass(frozen=True)
class Applies(Generic[Facts]):
    """Options and the circumstances in which they change something.

    Attributes:
        fields: the option, or several with spaces between.
        when: of all that is known, whether it does; None where that cannot be said yet.
        otherwise: why it does not, where it does not.
        fix: what gives it an effect; empty where it can only be left out.
    """

    fields: str
    when: Callable[[Facts], bool | None]
    otherwise: str
    fix: str = ""


def given_fields(*configs: BaseModel) -> frozenset[str]:
    """The options that were given; a flag that is off, or an empty text, is not."""
    return frozenset(
        name for config in configs for name in config.model_fields_set if getattr(config, name) not in _OFF
    )


def refuse_idle(given: Collection[str], rules: Iterable[Applies[Facts]], facts: Facts) -> None:
    """Refuse an option that would change nothing.

    Raises:
        UsageError: one is given in circumstances in which it has no effect.
    """
    for rule in rules:
        for name in rule.fields.split():
            if name in given and rule.when(facts) is False:
                leave = f"leave {option(name)} out"
                fix = f"{rule.fix}, or {leave}" if rule.fix else leave
                raise UsageError(f"{option(name)} would change nothing", rule.otherwise, fix)
