"""What the results of all verbs have in common: a short repr, and a table in notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


class Result:
    """Base of all results. Subclasses say in `facts` what is worth seeing at once."""

    def facts(self) -> Mapping[str, Any]:
        """Name -> value, the most important first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={_short(value)}" for name, value in self.facts().items())
        return f"{type(self).__name__}({told})"

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(_short(value))}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<table>{''.join(rows)}</table>"


def _short(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
