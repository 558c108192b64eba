"""Names for parts: a literal table of name -> 'module:attribute' and a line of help, imported on use only."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdcli.errors import UsageError, unknown
from kdcli.modules import reach

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
            reach(name.partition(":")[0])
            return load_target(name)
        raise unknown(self.noun, name, self.rows)
