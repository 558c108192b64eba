"""Names for parts: a literal table of name -> 'module:attribute' and a line of help, imported on use only."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdcli.errors import UsageError, unknown

# Parts that came from outside in the life of this process: name -> what it was taken for.
FOREIGN: dict[str, str] = {}
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_target(target: str) -> Any:
    """Import `module:attribute`.

    Raises:
        UsageError: the module or the attribute does not exist.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"cannot import {target!r}", str(error), "check the module is installed and spelled so"
        ) from None


@dataclass(frozen=True)
class Registry:
    """The parts of one room. `noun` is what an error calls them; `rows` maps a name to (target, help line)."""

    noun: str
    rows: Mapping[str, tuple[str, str]]

    def names(self) -> list[str]:
        """Every name in the table, in its order."""
        return list(self.rows)

    def help(self, name: str) -> str:
        """The line of help of one name."""
        return self.rows[name][1]

    def load(self, name: str) -> Any:
        """The part called `name`; a foreign one is named `package.module:attribute`.

        Raises:
            UsageError: the name is neither in the table nor importable.
        """
        if name in self.rows:
            return load_target(self.rows[name][0])
        if _TARGET.fullmatch(name):
            return self._fitting(name, load_target(name))
        raise unknown(self.noun, name, self.rows)

    def _fitting(self, name: str, found: Any) -> Any:
        """`found`, if it is called as the parts of the table are; what a class takes is for its user to check."""
        FOREIGN[name] = self.noun
        own = load_target(next(iter(self.rows.values()))[0])
        if isinstance(found, type) or isinstance(own, type):
            return found
        if not inspect.isfunction(own):
            if not isinstance(found, type(own)):
                why = f"it is a {type(found).__name__}, not a {type(own).__name__}"
                raise UsageError(f"{name} is no {self.noun}", why, f"see: {', '.join(self.rows)}")
            return found
        wanted = inspect.signature(own)
        try:
            inspect.signature(found).bind(*[None] * len(wanted.parameters))
        except TypeError:  # it takes others, or is nothing to call
            why = f"it is not called as a {self.noun} is: {own.__name__}{_arguments(wanted)}"
            raise UsageError(f"{name} is no {self.noun}", why, f"see: {', '.join(self.rows)}") from None
        except ValueError:  # written in C, and does not tell
            pass
        return found


def _arguments(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"
