"""What files cost: their bytes, and the time of a call beside that of the first of them, measured in turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdcli.agents.onnx.session import OnnxAgent
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import BATCH, Latencies, Timing, time_all
from kdcli.benchmarks.program import program
from kdcli.progress import Listener, silent

RUNTIME: Literal["onnxruntime"] = "onnxruntime"
FASTER = 1.05  # two timings of one file differ by less


@dataclass(frozen=True)
class Cost:
    """Of one file in onnxruntime.

    Attributes:
        onnx_bytes: its length.
        latency_us: microseconds of a call of one observation, the median; None where nothing was timed.
        faster: times faster than the first file, for calls of 1 and of 256 observations.
    """

    onnx_bytes: int
    latency_us: float | None
    faster: dict[int, float | None]

    @property
    def is_slower(self) -> bool:
        """Whether a call of one observation takes longer than that of the first."""
        return (self.faster[1] or 1.0) < 1 / FASTER


def costs(
    files: Mapping[str, OnnxAgent], observations: np.ndarray, seconds: float, listener: Listener = silent
) -> dict[str, Cost]:
    """What each file costs, by name; `seconds` for all timing on raw observations (N, *shape), 0 for none."""
    entries = [
        BenchEntry(name, None, file, plays=RUNTIME, timed={RUNTIME: program(file)}) for name, file in files.items()
    ]
    found = time_all(entries, observations, seconds, listener) if seconds else None
    first = next(iter(files))
    return {name: _cost(file, found, name, first) for name, file in files.items()}


def _cost(file: OnnxAgent, found: Latencies | None, name: str, first: str) -> Cost:
    ours, theirs = (found and found.get(key, RUNTIME) for key in (name, first))
    faster = {n: _faster(ours, theirs, n) if ours and theirs else None for n in (1, BATCH)}
    return Cost(file.size_bytes, ours.p50_us if ours else None, faster)


def _faster(ours: Timing, theirs: Timing, batch: int) -> float:
    """By the median of the rounds' medians, which saw the same machine."""
    pairs = zip(ours.single, theirs.single, strict=True) if batch == 1 else zip(ours.batch, theirs.batch, strict=True)
    return float(np.median([np.median(b) / np.median(a) for a, b in pairs]))
