"""What a long piece of work tells whoever listens; the work itself never prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kdcli.errors import spell


@dataclass(frozen=True)
class Event:
    """`done` of `total` units of `stage`, with the `facts` worth seeing (name -> number or word)."""

    stage: str
    done: float = 0.0
    total: float = 0.0
    facts: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A sentence for the user: a choice that was made, advice, a warning.

    `message` may name options as `kdcli.errors.option` does; `text` is what a listener in Python reads.
    """

    message: str

    @property
    def text(self) -> str:
        """The sentence, its options spelled as in Python."""
        return spell(self.message)


Listener = Callable[[Event | Note], None]


def silent(_: Event | Note) -> None:
    """Listen and say nothing."""
