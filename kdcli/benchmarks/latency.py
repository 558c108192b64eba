"""How long one decision takes: any number of programs, in turns, in one process, on one thread.

On a shared machine the same call wanders by half within a minute. Calls of all subjects take turns in short rounds, so
that each round's medians saw the same machine; two subjects are compared by the median over rounds of the ratio of
their medians. Measured so for 3 seconds on a machine five times overloaded, two sessions of one file differed by less
than 3 % in 19 of 20 runs, by 5 % in the other.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy as np

from kdcli.agents.threads import one_thread
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.program import Program
from kdcli.progress import Event, Listener, silent

BATCH = 256
CALLS, BATCHES = 100, 10  # a round, at most
MIN_ROUNDS = 5
_SINGLES = 64  # different observations, so that no branch or cache learns one of them by heart
_WARM_UP = 20  # calls before anything is timed
_LEAD = 4  # calls before each round's

# The name of a contender and that of a runtime.
Key = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Timing:
    """Nanoseconds of one subject, an array a round: of decisions one at a time, and of calls with 256 observations."""

    single: list[np.ndarray] = field(default_factory=list)
    batch: list[np.ndarray] = field(default_factory=list)

    @property
    def p50_us(self) -> float:
        """The median of single calls, in microseconds."""
        return float(np.median(np.concatenate(self.single))) / 1e3

    @property
    def p99_us(self) -> float:
        """The 99th percentile of single calls, in microseconds."""
        return float(np.percentile(np.concatenate(self.single), 99)) / 1e3

    @property
    def batch_p50_us(self) -> float:
        """The median of batched calls, in microseconds."""
        return float(np.median(np.concatenate(self.batch))) / 1e3

    @property
    def batch_p99_us(self) -> float:
        """The 99th percentile of batched calls, in microseconds."""
        return float(np.percentile(np.concatenate(self.batch), 99)) / 1e3

    @property
    def throughput(self) -> float:
        """Observations a second, 256 at a time."""
        return BATCH / (self.batch_p50_us / 1e6)

    def times_faster(self, other: Timing) -> float:
        """How many times faster than `other`, timed in the same rounds: above 1 is faster."""
        ratios = [np.median(theirs) / np.median(ours) for ours, theirs in zip(self.single, other.single, strict=True)]
        return float(np.median(ratios))


@dataclass(frozen=True, eq=False)
class Latencies:
    """Timings by contender and runtime; `floors` are what each runtime takes to give its input back."""

    timings: Mapping[Key, Timing]
    floors: Mapping[str, Timing]

    @property
    def rounds(self) -> int:
        """How many rounds were timed."""
        return len(self._any.single)

    @property
    def calls(self) -> int:
        """Timed calls of one observation, of each subject."""
        return sum(map(len, self._any.single))

    @property
    def _any(self) -> Timing:
        return next(iter(self.timings.values()))

    @property
    def runtimes(self) -> list[str]:
        """Every runtime in which someone was timed, in the order in which they were first met."""
        return list(dict.fromkeys(runtime for _, runtime in self.timings))

    def base(self, reference: str) -> str:
        """The first runtime that `reference` was timed in; the first of all where it was in none."""
        return next((runtime for name, runtime in self.timings if name == reference), self.runtimes[0])

    def get(self, name: str, runtime: str) -> Timing | None:
        """The timing of a contender in a runtime, if it was timed there."""
        return self.timings.get((name, runtime))

    def times_faster(self, ours: Key, theirs: Key) -> float | None:
        """How many times faster `ours` is than `theirs`; None where one was not timed."""
        a, b = self.get(*ours), self.get(*theirs)
        return None if a is None or b is None else a.times_faster(b)


def time_all(
    entries: Sequence[BenchEntry], obs: np.ndarray, seconds: float, listener: Listener = silent
) -> Latencies | None:
    """Time every contender in every runtime it has a program of, on raw observations (N, *shape).

    Takes about `seconds` in all; None where nobody has a program.
    """
    programs = {(c.name, runtime): made for c in entries for runtime, made in c.programs.items()}
    floors: dict[str, Program] = {}
    for (_, runtime), made in programs.items():
        if made.floor is not None:
            floors.setdefault(runtime, made.floor)
    if not programs:
        return None
    with _quiet():
        subjects = {key: _Subject(made, obs) for key, made in programs.items()}
        empty = {("", runtime): _Subject(made, obs) for runtime, made in floors.items()}
        timings = _take_turns({**subjects, **empty}, seconds, listener)
    return Latencies({key: timings[key] for key in subjects}, {key[1]: timings[key] for key in empty})


class _Subject:
    """A program with what it is given: small blocks of observations in turn, and a batch of 256."""

    def __init__(self, program: Program, obs: np.ndarray) -> None:
        self.call, self.block = program.call, program.block
        rows = np.resize(np.arange(len(obs)), BATCH)
        starts = range(min(len(obs), _SINGLES))
        blocks = [np.resize(np.roll(rows, -i), program.block) for i in starts]
        self.singles: list[Any] = [program.given(np.ascontiguousarray(obs[block])) for block in blocks]
        self.batch: Any = program.given(np.ascontiguousarray(obs[rows]))

    def time(self, n: int, first: int) -> np.ndarray:
        """Nanoseconds a decision in `n` calls (n,), after some that pay for the caches another subject left behind."""
        lead, call, inputs = min(_LEAD, n), self.call, self.singles
        times = np.empty(lead + n, np.int64)
        for i in range(lead + n):
            obs = inputs[(first + i) % len(inputs)]
            began = perf_counter_ns()
            call(obs)
            times[i] = perf_counter_ns() - began
        return times[lead:] / self.block

    def time_batch(self, n: int) -> np.ndarray:
        """Nanoseconds of `n` calls of the batch (n,)."""
        call, batch, times = self.call, self.batch, np.empty(n, np.int64)
        for i in range(n):
            began = perf_counter_ns()
            call(batch)
            times[i] = perf_counter_ns() - began
        return times


def _take_turns(subjects: Mapping[Key, _Subject], seconds: float, listener: Listener) -> dict[Key, Timing]:
    """Rounds of all subjects until the time is over, each round in an order of its own: none always follows another."""
    began, shuffle = perf_counter(), np.random.default_rng(0).permutation
    n, n_batches = _calls_a_round(subjects, seconds)
    keys, timings = list(subjects), {key: Timing() for key in subjects}
    rounds = 0
    while rounds < MIN_ROUNDS or perf_counter() - began < seconds:
        for key in (keys[i] for i in shuffle(len(keys))):
            timings[key].single.append(subjects[key].time(n, rounds * n))
            timings[key].batch.append(subjects[key].time_batch(n_batches))
        rounds += 1
        listener(Event("latency", min(perf_counter() - began, 0.99 * seconds), seconds, {"rounds": rounds}))
    listener(Event("latency", seconds, seconds, {"rounds": rounds}))
    return timings


def _calls_a_round(subjects: Mapping[Key, _Subject], seconds: float) -> tuple[int, int]:
    """Warm every subject up; how many single calls and batches of each fit into a twentieth of the time."""
    single = batch = 0.0
    for subject in subjects.values():
        subject.time_batch(1)
        single += subject.block * float(np.median(subject.time(_WARM_UP, 0))) / 1e9
        batch += float(subject.time_batch(1)[0]) / 1e9
    n_batches = int(np.clip(seconds / 40 / batch, 1, BATCHES))
    return int(np.clip((seconds / 20 - n_batches * batch) / single - _LEAD, 1, CALLS)), n_batches


@contextmanager
def _quiet() -> Iterator[None]:
    """One thread and no garbage collection, both as before afterwards."""
    collected = gc.isenabled()
    with one_thread():
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            if collected:
                gc.enable()
