"""Targets: what a deployed policy may take on the hardware it is for: `onnxruntime:latency_us<=8`, `c:bytes<=8192`.

    [runtime:]metric[@batch] sign number

Numbers of the network alone (`params`, `macs`) need no runtime; without one, the others mean onnxruntime. `@256` asks
for the time of one call with 256 observations.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdcli.benchmarks.latency import BATCH
from kdcli.bounds import Bound
from kdcli.errors import UsageError

METRICS = {
    "params": "weights and biases that act",
    "macs": "multiply-adds of one decision",
    "bytes": "of the file; in C: of its constants (flash)",
    "ram": "bytes of workspace, in C",
    "latency_us": "median of one call, microseconds",
    "p99_us": "99th percentile of it",
}
TIMED = ("latency_us", "p99_us")
_OF_THE_NETWORK = ("params", "macs")
_EXAMPLE = "onnxruntime:latency_us<=8, c:bytes<=8192 or params<=2000"


@dataclass(frozen=True)
class Target:
    """One target; `runtime` is one of `kdcli list runtimes`, `batch` 1 or 256."""

    bound: Bound

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read one target.

        Raises:
            UsageError: it is not of the form above, or nothing measures it.
        """
        bound = Bound.parse(text, "target", METRICS, _EXAMPLE)
        if bound.batch is not None and (bound.metric not in TIMED or bound.batch not in (1, BATCH)):
            raise UsageError(
                f"cannot measure the target {text!r}", f"calls are timed at 1 and @{BATCH}", f"write {_EXAMPLE}"
            )
        return cls(bound)

    @property
    def runtime(self) -> str:
        """Where it is measured."""
        return self.bound.subject or "onnxruntime"

    @property
    def is_timed(self) -> bool:
        """Whether it is about time."""
        return self.bound.metric in TIMED

    @property
    def of_the_network(self) -> bool:
        """Whether it is the same in every runtime."""
        return self.bound.metric in _OF_THE_NETWORK

    def __str__(self) -> str:
        return str(self.bound)


@dataclass(frozen=True)
class Met:
    """What a target came to: the value that was measured, and whether it is within the bound."""

    target: str
    value: float
    holds: bool


def met(target: Target, value: float) -> Met:
    """The target beside its value."""
    return Met(str(target), value, target.bound.holds(value))
