"""The C functions that a policy's steps call, by name: a file holds those it uses, and what they use themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kdcli.exporters.c.functions import FUNCTIONS
from kdcli.exporters.c.int_kernels import WHOLE
from kdcli.exporters.c.matmul_kernels import PRODUCTS

TEXTS: Mapping[str, str] = {**PRODUCTS, **FUNCTIONS, **WHOLE}

_USE = re.compile(r"\b(\w+)\(|const (window)\b")
_OWN = re.compile(r"\b(\w+)(?=\()|(?<=const )(window)\b|(?<=} )(window)(?=;)")


def texts(names: Iterable[str]) -> str:
    """The C text of these functions and of what they call, each once, in an order in which C takes them."""
    found: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in found:
            return
        used = {match[0] or match[1] for match in _USE.findall(TEXTS[name])}
        for other in sorted((used & TEXTS.keys()) - {name}):
            visit(other)
        found[name] = TEXTS[name]

    for name in sorted(names):
        visit(name)
    return "".join(found.values())


def own(text: str, name: str) -> str:
    """C text in which every function and type of this table begins with the policy's `name`, and `restrict`, too.

    Names at file scope are then the policy's alone, in a translation unit with others, or beside a user's own code.
    """

    def renamed(match: re.Match[str]) -> str:
        return f"{name}_{match[0]}" if match[0] in TEXTS else match[0]

    return re.sub(r"\brestrict\b", f"{name.upper()}_RESTRICT", _OWN.sub(renamed, text))


def restrict(name: str) -> str:
    """The macro that stands for C99's `restrict`, which C++ has under another name."""
    macro = f"{name.upper()}_RESTRICT"
    return (
        f"\n#if defined(__cplusplus) || (defined(_MSC_VER) && _MSC_VER < 1930)\n#define {macro} __restrict\n"
        f"#else\n#define {macro} restrict\n#endif\n"
    )
