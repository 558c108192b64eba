"""What a loss says about itself: everything that other parts must know of it stands beside its formula.

    @loss(reads=("logits", "q"), tempered=True)
    def js(student, teacher, tau): ...

A loss of your own that says nothing is given all heads, and no temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Part = TypeVar("Part", bound=Callable[..., Any])
Actions = Literal["any", "choices", "continuous"]


@dataclass(frozen=True)
class LossFacts:
    """What a loss needs of its surroundings.

    Attributes:
        reads: the teacher's heads that it looks at; None: perhaps all.
        of: the actions that it compares: choices, continuous ones, or either.
        tempered: whether the temperature changes it.
        rescaled: whether its gradient shrinks with tau^2, which the objective gives back (Hinton et al. 2015, sec. 2).
        q_outputs: whether the student's outputs are Q-values under it; the others leave that to the action space.
        critic: whether it needs a student with a critic of states.
        spread: whether it needs a student with a spread of its own, where actions are continuous.
        unit: the head that it compares in units of the teacher's own variation (see `distillation.units`), if any.
    """

    reads: frozenset[str] | None = None
    of: Actions = "any"
    tempered: bool = False
    rescaled: bool = False
    q_outputs: bool = False
    critic: bool = False
    spread: bool = False
    unit: str | None = None


def loss(
    *,
    reads: Collection[str] | None = None,
    of: Actions = "any",
    tempered: bool = False,
    rescaled: bool = False,
    q_outputs: bool = False,
    critic: bool = False,
    spread: bool = False,
    unit: str | None = None,
) -> Callable[[Part], Part]:
    """Declare the facts of a loss, a function or a module's class; see `LossFacts`."""
    heads = None if reads is None else frozenset(reads)
    found = LossFacts(heads, of, tempered, rescaled, q_outputs, critic, spread, unit)

    def declare(part: Part) -> Part:
        part.facts = found  # type: ignore[attr-defined]
        return part

    return declare


def facts_of(part: Any) -> LossFacts:
    """What a loss declares; of one that declares nothing, that it may read all and has no temperature."""
    found: LossFacts = getattr(part, "facts", LossFacts())
    return found
