"""What a number is asked to be: `score>=0.95`, `student:latency_us<=20`, `onnxruntime:latency_us@256<=300`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from kdcli.errors import UsageError, unknown

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(
    r"(?:(?P<subject>.+):)?\s*(?P<metric>\w+)(?:@(?P<batch>\d{1,9}))?\s*(?P<sign><=|>=|<|>)\s*(?P<number>\S+)"
)


@dataclass(frozen=True)
class Bound:
    """`[subject:]metric[@batch] sign number`, taken apart."""

    metric: str
    sign: str
    number: float
    subject: str = ""
    batch: int | None = None

    @classmethod
    def parse(cls, text: str, noun: str, metrics: Collection[str], example: str) -> Bound:
        """Read one; errors call it a `noun` and show an `example`.

        Raises:
            UsageError: it is not of that form, or its metric is not among `metrics`.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            why = "it is a metric, one of <= >= < >, and a number"
            raise UsageError(f"cannot read the {noun} {text!r}", why, f"write {example}")
        if found["metric"] not in metrics:
            raise unknown("metric", found["metric"], metrics)
        batch = None if found["batch"] is None else int(found["batch"])
        number = _number(found["number"], f"{noun} {text!r}")
        return cls(found["metric"], found["sign"], number, found["subject"] or "", batch)

    def __str__(self) -> str:
        batch = "" if self.batch is None else f"@{self.batch}"
        return f"{self.subject + ':' if self.subject else ''}{self.metric}{batch}{self.sign}{self.number:g}"

    def holds(self, value: float) -> bool:
        """Whether one number is on the right side."""
        return _OPERATORS[self.sign](value, self.number)


def _number(text: str, whole: str) -> float:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"cannot read the {whole}", f"{text!r} is not a number", "write one, such as 0.95")
    return number
