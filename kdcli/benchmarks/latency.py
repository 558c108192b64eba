"""How long one decision takes: every contender in every runtime, in turns, in one process, on one thread.

On a shared machine the same call wanders by half within a minute. Calls of all subjects take turns in short rounds, so
that each round's medians saw the same machine; two subjects are compared by the median over rounds of the ratio of
their medians. Measured so for 3 seconds on a machine five times overloaded, two sessions of one file differed by less
than 3 % in 19 of 20 runs, by 5 % in the other.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.agents.agent import Acts
from kdcli.agents.runtime import OnnxAgent, start
from kdcli.benchmarks.contender import Contender, Runtime
from kdcli.progress import Event, Listener, silent
from kdcli.spec import OBS, STATE_OUT

if TYPE_CHECKING:
    from onnx import ValueInfoProto

BATCH = 256
CALLS = 100
MIN_ROUNDS = 5
FLOOR = "an empty graph"
_SINGLES = 64  # different observations, so that no branch or cache learns one of them by heart
_WARM_UP = 20  # calls before anything is timed
_LEAD = 4  # calls before each round's

Key = tuple[str, Runtime]


@dataclass(frozen=True, eq=False)
class Timing:
    """Nanoseconds of every call of one subject: rounds of calls of one observation, and one call of 256 a round."""

    single: list[np.ndarray]
    batch: list[int]

    @property
    def p50_us(self) -> float:
        return float(np.median(np.concatenate(self.single))) / 1e3

    @property
    def p99_us(self) -> float:
        return float(np.percentile(np.concatenate(self.single), 99)) / 1e3

    @property
    def throughput(self) -> float:
        """Observations a second, 256 at a time."""
        return BATCH / (float(np.median(self.batch)) / 1e9)

    def times_faster(self, other: Timing) -> float:
        """How many times faster than `other`, timed in the same rounds: above 1 is faster."""
        ratios = [np.median(theirs) / np.median(ours) for ours, theirs in zip(self.single, other.single, strict=True)]
        return float(np.median(ratios))


@dataclass(frozen=True, eq=False)
class Latencies:
    """Timings by (contender, runtime); `floor` is onnxruntime's call of a graph that does nothing."""

    timings: Mapping[Key, Timing]
    floor: Timing

    @property
    def rounds(self) -> int:
        return len(self.floor.single)

    @property
    def calls(self) -> int:
        """Single calls of each subject."""
        return sum(map(len, self.floor.single))

    def get(self, name: str, runtime: Runtime) -> Timing | None:
        """The timing of a contender in a runtime, if it was timed there."""
        return self.timings.get((name, runtime))

    def times_faster(self, ours: Key, theirs: Key) -> float | None:
        """How many times faster `ours` is than `theirs`; None where one was not timed."""
        a, b = self.get(*ours), self.get(*theirs)
        return None if a is None or b is None else a.times_faster(b)


def time_all(
    contenders: Sequence[Contender], obs: np.ndarray, seconds: float, listener: Listener = silent
) -> Latencies:
    """Time every contender on raw observations (N, *shape) for about `seconds` in all."""
    subjects: dict[Key, _Subject] = {
        (contender.name, runtime): _subject(agent, obs)
        for contender in contenders
        for runtime, agent in contender.runtimes.items()
    }
    floor: Key = (FLOOR, "onnxruntime")
    with _quiet():
        timings = _take_turns({**subjects, floor: _empty(obs)}, seconds, listener)
    return Latencies({key: timing for key, timing in timings.items() if key != floor}, timings[floor])


@dataclass(frozen=True, eq=False)
class _Subject:
    """A call, the single observations (1, *shape) it is given in turn, and a batch (256, *shape)."""

    call: Callable[[Any], object]
    singles: Sequence[Any]
    batch: Any

    def time(self, n: int, first: int) -> np.ndarray:
        """Nanoseconds of `n` calls (n,), after some that pay for the caches another subject left behind."""
        lead, call, inputs = min(_LEAD, n), self.call, self.singles
        times = np.empty(lead + n, np.int64)
        for i in range(lead + n):
            obs = inputs[(first + i) % len(inputs)]
            began = perf_counter_ns()
            call(obs)
            times[i] = perf_counter_ns() - began
        return times[lead:]

    def time_batch(self) -> int:
        """Nanoseconds of one call of the batch."""
        began = perf_counter_ns()
        self.call(self.batch)
        return perf_counter_ns() - began


def _subject(agent: Acts, obs: np.ndarray) -> _Subject:
    """What a user calls: `agent.act`, or the session that a deployment holds."""
    cast = obs.astype(agent.observation.dtype, copy=False)
    if isinstance(agent, OnnxAgent):
        run, names = agent.session.run, ["action", *([STATE_OUT] if agent.state_size else [])]
        return _Subject(lambda inputs: run(names, inputs), *_inputs(cast, agent.inputs))
    if not agent.state_size:
        return _Subject(agent.act, *_inputs(cast, lambda rows: rows))
    size = agent.state_size
    return _Subject(
        lambda given: agent.step(*given), *_inputs(cast, lambda rows: (rows, np.zeros((len(rows), size), np.float32)))
    )


def _inputs(obs: np.ndarray, given: Callable[[np.ndarray], Any]) -> tuple[list[Any], Any]:
    """Single observations and a batch, as the subject is `given` them."""
    rows = np.resize(np.arange(len(obs)), BATCH)
    alone = [given(np.ascontiguousarray(obs[i : i + 1])) for i in rows[:_SINGLES]]
    return alone, given(np.ascontiguousarray(obs[rows]))


def _empty(obs: np.ndarray) -> _Subject:
    """A graph that gives back its input: what a call of onnxruntime costs before any policy."""
    from onnx import helper

    def port(name: str, part: np.ndarray) -> ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(part.dtype)
        return helper.make_tensor_value_info(name, kind, ["batch", *part.shape[1:]])

    parts = {name: obs[name] for name in obs.dtype.names} if obs.dtype.names else {OBS: obs}
    first = next(iter(parts))
    identity = helper.make_node("Identity", [first], ["nothing"])
    ports = [port(name, part) for name, part in parts.items()]
    graph = helper.make_graph([identity], "empty", ports, [port("nothing", parts[first])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session, names = start(model.SerializeToString(), FLOOR), ["nothing"]
    rows = {name: np.ascontiguousarray(part) for name, part in parts.items()}
    return _Subject(
        lambda inputs: session.run(names, inputs),
        *_inputs(np.arange(len(obs)), lambda at: {name: part[at] for name, part in rows.items()}),
    )


def _take_turns(subjects: Mapping[Key, _Subject], seconds: float, listener: Listener) -> dict[Key, Timing]:
    """Rounds of all subjects until the time is over, each round in an order of its own: none always follows another."""
    began, shuffle = perf_counter(), np.random.default_rng(0).permutation
    n = _calls_a_round(subjects, seconds)
    keys, timings = list(subjects), {key: Timing([], []) for key in subjects}
    rounds = 0
    while rounds < MIN_ROUNDS or perf_counter() - began < seconds:
        for key in (keys[i] for i in shuffle(len(keys))):
            timings[key].single.append(subjects[key].time(n, rounds * n))
            timings[key].batch.append(subjects[key].time_batch())
        rounds += 1
        listener(Event("latency", min(perf_counter() - began, 0.99 * seconds), seconds, {"rounds": rounds}))
    listener(Event("latency", seconds, seconds, {"rounds": rounds}))
    return timings


def _calls_a_round(subjects: Mapping[Key, _Subject], seconds: float) -> int:
    """Warm every subject up; how many calls of each fit into a twentieth of the time, 1 to 100."""
    single = batch = 0.0
    for subject in subjects.values():
        subject.time_batch()
        single += float(np.median(subject.time(_WARM_UP, 0))) / 1e9
        batch += subject.time_batch() / 1e9
    return int(np.clip((seconds / 20 - batch) / single - _LEAD, 1, CALLS))


@contextmanager
def _quiet() -> Iterator[None]:
    """One thread and no garbage collection, both as before afterwards."""
    import torch

    threads, collected = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collected:
            gc.enable()
