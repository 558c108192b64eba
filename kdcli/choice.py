"""A part chosen by name with its arguments, as a user types it: `mlp:32x32,activation=relu`, `linear:4->1`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from kdcli.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """`name[:value][,key=value...]`, taken apart; values stay text, the part that reads them checks them."""

    name: str
    value: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, known: Container[str] | None = None) -> Choice:
        """Read one choice; where the names that are `known` are given, `module:attribute` needs no dot.

        Raises:
            UsageError: an empty name, or an option without `=`.
        """
        # A dotted `module:attribute` is a name of its own; its arguments follow the second colon.
        parts = text.strip().split(":")
        split = 2 if "." in parts[0] or (known is not None and parts[0] not in known) else 1
        name, rest = ":".join(parts[:split]), ":".join(parts[split:])
        if not name:
            raise UsageError(f"cannot read {text!r}", "a name is missing", "write it as name[:value][,key=value]")
        items = [item.strip() for item in rest.split(",") if item.strip()]
        value = items.pop(0) if items and "=" not in items[0] else ""
        bad = [item for item in items if "=" not in item]
        if bad:
            raise UsageError(f"cannot read {bad[0]!r} in {text!r}", "an option needs '='", "write it as key=value")
        return cls(name, value, {k.strip(): v.strip() for k, _, v in (item.partition("=") for item in items)})

    def only(self, *known: str) -> Choice:
        """This choice, having checked that it has no other options than `known`."""
        for key in self.options:
            if key not in known:
                valid = ", ".join(known) or "none"
                raise UsageError(
                    f"{self.name!r} has no option {key!r}", f"its options: {valid}", "remove or correct it"
                )
        return self

    def whole(self, key: str, default: int, most: int = 1 << 20) -> int:
        """The option `key` as a whole number from 1 to `most`.

        Raises:
            UsageError: it is something else.
        """
        text = self.options.get(key, str(default))
        if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
            raise UsageError(
                f"cannot read {key}={text}", f"it is a whole number from 1 to {most:,}", f"{key}={default}"
            )
        return int(text)

    def __str__(self) -> str:
        items = ([self.value] if self.value else []) + [f"{k}={v}" for k, v in self.options.items()]
        return f"{self.name}:{','.join(items)}" if items else self.name
