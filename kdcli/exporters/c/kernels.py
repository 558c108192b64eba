"""The C functions that a policy's steps call, by name: a file holds those it uses, and what they use themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kdcli.exporters.c.functions import FUNCTIONS
from kdcli.exporters.c.int_kernels import WHOLE
from kdcli.exporters.c.matmul_kernels import PRODUCTS

TEXTS: Mapping[str, str] = {**PRODUCTS, **FUNCTIONS, **WHOLE}

_USE = re.compile(r"\b(\w+)\(|const (window)\b")


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
