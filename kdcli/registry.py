"""Names for parts: a literal table of name -> 'module:attribute' and a line of help, imported on use only.

Installed packages add parts by entry points, whose group is `kdcli.` and the table's name (`kdcli.losses`):

    [project.entry-points."kdcli.losses"]
    my_loss = "my_package.losses:my_loss"
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from kdcli.errors import UsageError, unknown
from kdcli.modules import reach
from kdcli.said import refuse_unsaid

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
    """The parts of one kind.

    Attributes:
        noun: What an error calls them.
        rows: Name -> (target, line of help).
        group: Entry points that add to them; none where it is empty. They never replace a row.
    """

    noun: str
    rows: Mapping[str, tuple[str, str]]
    group: str = ""

    @cached_property
    def plugins(self) -> dict[str, tuple[str, str]]:
        """The parts that installed packages add, as rows. None of these packages is imported."""
        found = entry_points(group=self.group) if self.group else ()
        named = {point.name: (point.value, f"from {point.dist.name}" if point.dist else "") for point in found}
        return {name: row for name, row in named.items() if name not in self.rows}

    @property
    def table(self) -> dict[str, tuple[str, str]]:
        """kdcli's own rows, then those of plugins."""
        return {**self.rows, **self.plugins}

    def names(self) -> list[str]:
        """Every name in the table, in its order."""
        return list(self.table)

    def help(self, name: str) -> str:
        """The line of help of one name."""
        return self.table[name][1]

    def load(self, name: str) -> Any:
        """The part called `name`; a foreign one is named `package.module:attribute`.

        Raises:
            UsageError: the name is neither in the table nor importable, or only a file names it.
        """
        if name in self.table:
            return load_target(self.table[name][0])
        if _TARGET.fullmatch(name):
            refuse_unsaid([name])
            reach(name.partition(":")[0])
            return self._fitting(name, load_target(name))
        raise unknown(self.noun, name, self.table)

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
            why = f"it takes other arguments than those of kdcli: {own.__name__}{_arguments(wanted)}"
            raise UsageError(f"{name} is no {self.noun}", why, f"see: {', '.join(self.rows)}") from None
        except ValueError:  # written in C, and does not tell
            pass
        return found


def _arguments(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"
