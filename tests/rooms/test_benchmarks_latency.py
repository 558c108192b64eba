"""Timing: fair to all, and nothing left behind."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from toy_teachers import reach_teacher

from kdcli.benchmarks import latency
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import BATCH, CALLS, MIN_ROUNDS, Timing, time_all
from kdcli.benchmarks.program import Program
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.progress import Event, Note
from kdcli.spec import Space, box

OBS = np.random.default_rng(0).normal(size=(90, 2))


@dataclass
class Sleeper:
    """Takes `seconds` a call, and writes down who was called on how many."""

    name: str
    seconds: float
    log: list[tuple[str, int]]
    env: None = None
    observation: Space = box((2,), dtype="float64")  # noqa: RUF009
    action: Space = box((1,))  # noqa: RUF009
    state_size: int = 0

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        self.log.append((self.name, len(obs)))
        time.sleep(self.seconds)
        return np.zeros((len(obs), 1), np.float32)


@pytest.fixture
def own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only sleeping moves: how busy the machine is does not show."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(latency, "perf_counter", lambda: now[0])
    monkeypatch.setattr(latency, "perf_counter_ns", lambda: round(now[0] * 1e9))


def sleepers(*seconds: float) -> tuple[list[BenchEntry], list[tuple[str, int]]]:
    log: list[tuple[str, int]] = []
    return [BenchEntry(f"s{i}", Sleeper(f"s{i}", s, log)) for i, s in enumerate(seconds)], log  # type: ignore[arg-type]


@pytest.mark.usefixtures("own_clock")
def test_ratios_of_known_times() -> None:
    """Law: who takes twice as long is half as fast; p50, p99 and throughput are in their units."""
    entries, _ = sleepers(0.001, 0.003)
    found = time_all(entries, OBS, 0.4)
    assert found.times_faster(("s0", "torch"), ("s1", "torch")) == pytest.approx(3.0, rel=1e-6)
    timing = found.get("s1", "torch")
    assert timing is not None
    assert (timing.p50_us, timing.p99_us) == pytest.approx((3000, 3000), rel=1e-6)
    assert timing.throughput == pytest.approx(BATCH / 0.003, rel=1e-6)
    assert found.get("s1", "onnxruntime") is None
    assert found.times_faster(("s1", "onnxruntime"), ("s0", "torch")) is None


def test_a_ratio_is_that_of_rounds() -> None:
    """Law: each round's medians are compared first, then comes the median over rounds: a slow spell does not count."""
    slow = [np.full(5, 100 * r) for r in (1, 10, 2)]
    quick = [np.full(5, 50 * r) for r in (1, 10, 2)]
    assert Timing(quick, []).times_faster(Timing(slow, [])) == 2.0


def test_subjects_take_turns() -> None:
    """Law: no subject is timed twice before all were once, and none always follows the same other."""
    entries, log = sleepers(0.0, 0.0, 0.0)
    time_all(entries, OBS, 0.2)
    # Batches end a turn; four warm up.
    turns = [name for (name, n), (_, after) in pairwise([*log, ("", 0)]) if n == BATCH != after][4:]
    rounds = [turns[i : i + 3] for i in range(0, len(turns) - 2, 3)]
    assert len(rounds) >= MIN_ROUNDS
    assert all(sorted(names) == ["s0", "s1", "s2"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_equal_files_are_equally_fast() -> None:
    """Law: two sessions of one file differ by little, and neither is faster than the empty graph."""
    made = convert(reach_teacher(256), None, ExportConfig())
    pair = [BenchEntry(name, None, made.agent, plays="onnxruntime") for name in "ab"]
    found = time_all(pair, OBS, 1.0)
    assert found.times_faster(("a", "onnxruntime"), ("b", "onnxruntime")) == pytest.approx(1.0, abs=0.15)
    timing = found.get("a", "onnxruntime")
    assert timing is not None
    assert found.floors["onnxruntime"].p50_us < timing.p50_us
    assert found.calls == found.rounds * len(timing.single[0])


def test_time_is_bounded() -> None:
    """Law: timing takes about as long as it may, however slow the slowest is."""
    entries, log = sleepers(0.0, 0.02)
    began = time.perf_counter()
    time_all(entries, OBS, 0.5)
    assert time.perf_counter() - began < 2.5
    assert [name for name, n in log if n == 1].count("s1") >= MIN_ROUNDS


def test_nothing_is_left_behind() -> None:
    """Law: threads and garbage collection are as before, also when a call fails; one thread while timing."""
    seen = set()

    class Fails(Sleeper):
        def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
            seen.add((torch.get_num_threads(), gc.isenabled()))
            raise RuntimeError("no")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            time_all([BenchEntry("a", Fails("a", 0.0, []))], OBS, 0.1)  # type: ignore[arg-type]
        assert (torch.get_num_threads(), gc.isenabled()) == (2, True)
    finally:
        torch.set_num_threads(before)
    assert seen == {(1, False)}


def test_timing_says_how_far_it_is() -> None:
    """Law: the last event is complete, and no other is."""
    heard: list[Event | Note] = []
    entries, _ = sleepers(0.0)
    time_all(entries, OBS, 0.1, heard.append)
    events = [event for event in heard if isinstance(event, Event)]
    assert [event.done >= event.total for event in events] == [False] * (len(events) - 1) + [True]


@pytest.mark.parametrize("n", [1, 90, 1000])
def test_few_states_are_enough(n: int) -> None:
    """Law: singles are one observation, a batch is 256, whatever the number of states; values are those given."""
    obs = np.random.default_rng(0).normal(size=(n, 2))
    for block in (1, 3):
        subject = latency._Subject(Program(lambda rows: rows, lambda rows: rows, block), obs)
        assert {single.shape for single in subject.singles} == {(block, 2)}
        assert subject.batch.shape == (BATCH, 2)
        assert {*np.concatenate([*subject.singles, subject.batch]).ravel()} <= {*obs.ravel()}


def test_a_block_is_many_decisions() -> None:
    """Law: where one call makes several decisions, the time of one is that of the call divided by their number."""
    alone, many = (Program(lambda rows: time.sleep(0.002 * len(rows)), lambda rows: rows, block) for block in (1, 4))
    once, often = (latency._Subject(program, OBS).time(3, 0) for program in (alone, many))
    assert often.mean() == pytest.approx(once.mean(), rel=0.5)


def test_floors_are_timed_beside() -> None:
    """Law: each runtime's empty call is timed once, in the same rounds; without programs there is nothing."""
    slow = Program(lambda _: time.sleep(0.002), lambda rows: rows)
    subject = replace(slow, call=lambda _: time.sleep(0.004), floor=slow)
    pair = [BenchEntry(name, reach_teacher(), timed={"slow": subject, "bare": slow}) for name in "ab"]
    found = time_all(pair, OBS, 0.2)
    assert found is not None
    assert (found.runtimes, list(found.floors)) == (["slow", "bare"], ["slow"])
    assert len(found.floors["slow"].single) == found.rounds
    assert found.floors["slow"].p50_us < 0.8 * found.timings["a", "slow"].p50_us
    assert time_all([BenchEntry("a", reach_teacher(), timed={})], OBS, 0.2) is None


def test_files_are_given_their_own_dtype() -> None:
    """Law: onnxruntime is timed on what the file takes, also where the env gives another dtype."""
    file = convert(reach_teacher(), None, ExportConfig()).agent
    found = time_all([BenchEntry("a", None, file, plays="onnxruntime")], OBS.astype(np.float32), 0.05)
    assert found.calls <= CALLS * found.rounds
