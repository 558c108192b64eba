"""Names and texts that C takes, from names and texts of any kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from kdcli.errors import UsageError

_C = "auto break case char const continue default do double else enum extern float for goto if inline int long register"
_C99 = "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while main bool"
_CPP = (
    "alignas alignof and asm catch class compl concept constexpr decltype delete dynamic export explicit false friend"
    " mutable namespace new noexcept not nullptr operator or private protected public requires template this throw true"
    " try typeid typename using virtual xor"
)
# Macros that some compilers define by themselves.
_MACROS = "linux unix i386 vax sun arm mips"
RESERVED = frozenset(f"{_C} {_C99} {_CPP} {_MACROS}".split())


# What follows the policy's name in the header.
PUBLIC = ("run", "reset", "record", "work")


class Names:
    """Identifiers, each given once: lower case, since capitals are the names of macros."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {*RESERVED, *taken}

    def new(self, text: str) -> str:
        """An identifier that looks like `text` and was not given before."""
        name = re.sub(r"[^a-z0-9_]", "_", text.lower())
        if not re.match(r"[a-z]", name) or name.endswith("_t"):
            name = f"v_{name}_" if name.endswith("_t") else f"v_{name}"
        number, found = 1, name
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found


def symbol(stem: str) -> str:
    """What the public names of a file called `stem` begin with.

    Raises:
        UsageError: a C source cannot include a header of this name.
    """
    if not stem or re.search(r'[\\"\n\r]|\?\?', stem):
        why = "C cannot include a header with quotes, backslashes, ?? or line breaks in its name"
        raise UsageError(f"no C file can be called {stem!r}", why, "choose another name")
    name = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_")  # C++ keeps two underscores in a row for itself
    return name if re.match(r"[A-Za-z]", name) else f"policy_{name}".rstrip("_")


def words(text: str) -> str:
    """Text for a comment: printable, with nothing that ends or begins one, or is another character to C."""
    return re.sub(r"[^ -~]|[*?\\]", "_", text)


def json_words(value: Any, indent: int | None = None) -> str:
    """JSON for a comment: the same value, written without what ends a comment or begins one."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, indent=indent)
    return text.replace("*", "\\u002a")
