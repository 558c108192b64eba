"""The benchmark as a whole, on toy envs: paired, complete, and the same again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.benchmarks.bench import Bar, Bench, arena, bench, time_again
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import Latencies, Timing
from kdcli.benchmarks.record import SCHEMA, to_json
from kdcli.benchmarks.speedup import Speedup, precision, split
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.networks.packed_weights import Packed
from kdcli.progress import Event, Note
from kdcli.rollouts.evaluate import play
from kdcli.spec import EnvSpec

UNTIMED = BenchConfig(episodes=20, states=200, latency_budget=0)


def exported(agent: Agent, *outputs: str) -> Any:
    return convert(agent, None, ExportConfig(outputs=outputs or ("action",))).agent


def idle(agent: Agent) -> Agent:
    """The same agent with a policy that always does the same."""
    import copy

    policy = copy.deepcopy(agent.policy)
    for parameter in policy.parameters():
        parameter.data.zero_()
    return replace(agent, policy=policy)


def measured(*entries: BenchEntry, config: BenchConfig = UNTIMED, env: EnvSpec = REACH) -> Bench:
    vector = arena(entries, env, config)
    try:
        return bench(entries, vector, config)
    finally:
        vector.close()


@cache
def of_three() -> Bench:
    """A teacher, a small agent that is as good, exported, and one that does nothing."""
    small, config = (
        reach_teacher(4),
        UNTIMED.model_copy(update={"episodes": 120, "latency_budget": 0.3, "floor": -800.0}),
    )
    return measured(
        BenchEntry("teacher", reach_teacher(), exported(reach_teacher())),
        BenchEntry("small", small, exported(small), plays="onnxruntime"),
        BenchEntry("idle", idle(small)),
        config=config,
    )


def test_a_good_student_holds_and_a_bad_one_fails() -> None:
    """Law: the verdict follows from the score between random play (0) and the reference (1)."""
    found = of_three()
    small, nothing = found["small"].comparison, found["idle"].comparison
    assert small is not None
    assert nothing is not None
    assert (small.verdict, nothing.verdict) == ("holds", "fails")
    assert small.score == pytest.approx(1.0, abs=1e-3)
    assert small.rho == pytest.approx(1.0, abs=1e-3)
    assert found.reference.comparison is None
    a, b, c = (
        r.mean() for r in (found["idle"].played.episodes.returns, found.random.episodes.returns, teacher_returns())
    )
    assert nothing.score == pytest.approx((a - b) / (c - b))


def teacher_returns() -> np.ndarray:
    return of_three().reference.played.episodes.returns


def test_everyone_plays_the_same_initial_states() -> None:
    """Law: returns are paired: contender, reference and random play one episode on each of the same seeds."""
    found = of_three()
    assert {tuple(r.played.episodes.seeds) for r in found.results} == {tuple(found.random.episodes.seeds)}
    assert list(found.random.episodes.seeds) == list(range(10_000, 10_120))
    alone = play(reach_teacher(4), Vector(REACH, 3), found.random.episodes.seeds)
    assert found["small"].played.episodes.returns == pytest.approx(alone.returns, rel=1e-4)
    other = measured(BenchEntry("a", reach_teacher()), config=UNTIMED.model_copy(update={"seed": 1}))
    assert not {*other.random.episodes.seeds} & {*found.random.episodes.seeds}


def test_states_are_those_of_the_reference() -> None:
    """Law: similarity is measured where the reference goes, on as many states as asked for."""
    found = of_three()
    assert found.states.observations.shape == (200, 2)
    near, far = found["small"].similarity, found["idle"].similarity
    assert near is not None
    assert far is not None
    assert (near.n_states, near.agreement) == (200, pytest.approx(1.0, abs=1e-5))
    assert far.agreement < 0.9
    assert found.reference.similarity is None


def test_the_same_again() -> None:
    """Law: the same seed gives the same returns, sampled play and random play included; another seed others."""
    config = UNTIMED.model_copy(update={"sampled": True})
    first, again = (measured(BenchEntry("a", reach_teacher()), config=config) for _ in range(2))
    assert (first.reference.played.episodes.returns == again.reference.played.episodes.returns).all()
    assert (first.random.episodes.returns == again.random.episodes.returns).all()
    assert (first.states.observations == again.states.observations).all()
    greedy = measured(BenchEntry("a", reach_teacher()))
    assert greedy.reference.returns.mean != first.reference.returns.mean


def test_sampled_play_is_the_same_in_both_runtimes() -> None:
    """Law: an agent and its file, drawing from one seed, play the same episodes."""
    config = UNTIMED.model_copy(update={"sampled": True})
    agent = reach_teacher()
    file = BenchEntry("file", None, exported(agent, "mean", "log_std"), plays="onnxruntime")
    found = measured(BenchEntry("agent", agent), file, config=config)
    ours, theirs = (r.played.episodes.returns for r in found.results)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_saturated_returns_are_judged_by_falls_that_were_not_seen() -> None:
    """Law: where no episode fails, 200 show that a student holds 0.95, and 20 do not."""
    pair = BenchEntry("a", choose_teacher()), BenchEntry("b", choose_teacher(8))
    for episodes, answer in ((200, "holds"), (20, "undecided")):
        config = UNTIMED.model_copy(update={"episodes": episodes})
        judged = measured(*pair, config=config, env=CHOOSE)["b"].comparison
        assert judged is not None
        assert (judged.verdict, judged.rule, judged.rho) == (answer, "falls", None)
        assert (judged.more_episodes is None) == (answer == "holds")


OPEN = UNTIMED.model_copy(update={"episodes": None, "max_episodes": 160, "floor": -800.0})


def pair() -> tuple[BenchEntry, BenchEntry]:
    """A teacher, and a student that does nothing."""
    return BenchEntry("teacher", reach_teacher()), BenchEntry("idle", idle(reach_teacher(4)))


def looked(bars: dict[str, list[Bar]] | None, *entries: BenchEntry) -> Bench:
    vector = arena(entries, REACH, OPEN)
    try:
        return bench(entries, vector, OPEN, bars=bars)
    finally:
        vector.close()


def test_play_goes_on_until_all_is_decided() -> None:
    """Law: a hopeless student needs one look, a good one more, a borderline one all; baselines hold up nobody."""
    teacher, nothing = pair()
    good = BenchEntry("good", reach_teacher(4))
    assert looked(None, teacher, nothing).looks == (50,)
    several = looked(None, teacher, nothing, good)
    assert several["good"].comparison is not None
    assert several["good"].comparison.verdict == "holds"
    assert 50 < several.looks[-1] < 160
    assert len(several.looks) > 1
    assert looked({"good": [("score", 1.0)]}, teacher, good).looks[-1] == 160
    assert looked(None, teacher, replace(good, baseline=True)).looks == (100,)
    assert looked(None, teacher).looks == (100,)


def test_looks_are_of_one_row_of_seeds() -> None:
    """Law: with looks in between, an agent's episodes are those of one look at all of them, and all are recorded."""
    teacher, nothing = pair()
    found = looked({"idle": [("tail", 0.5)]}, teacher, nothing)
    n = found.looks[-1]
    whole = measured(teacher, nothing, config=UNTIMED.model_copy(update={"episodes": n}))
    for one, other in zip(found.results, whole.results, strict=True):
        assert one.played.episodes.seeds == other.played.episodes.seeds == tuple(range(10_000, 10_000 + n))
        assert np.allclose(one.played.episodes.returns, other.played.episodes.returns)
    assert to_json(found)["play"]["looks"] == list(found.looks)


def test_episodes_are_capped() -> None:
    """Law: no episode is longer than --max-steps, the env's own limit holds without, and the record says which."""
    config = UNTIMED.model_copy(update={"max_steps": 7})
    found = measured(BenchEntry("a", reach_teacher()), config=config)
    assert set(found.reference.played.episodes.lengths) == {7}
    assert (found.cap, of_three().cap, Vector(CHOOSE, 1).cap) == (7, 50, 20)
    assert to_json(found)["play"]["max_steps"] == 7


def test_latencies_can_be_measured_again() -> None:
    """Law: a second measurement replaces the times and nothing else, and the record says so."""
    first = of_three()
    again = time_again(first)
    assert again.results is first.results
    assert again.latencies is not first.latencies
    assert (to_json(first)["timing"]["repeated"], to_json(again)["timing"]["repeated"]) == (False, True)


# --- the record


def test_the_record_is_json() -> None:
    """Law: a record is finite JSON of the schema it names, with no path; episodes only when asked for."""
    record = to_json(of_three())
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["schema"] == SCHEMA == "kdcli.bench/1"
    assert [c["role"] for c in record["contenders"]] == ["reference", "candidate", "candidate"]
    assert not any("episodes" in c for c in record["contenders"])
    full = to_json(of_three(), per_episode=True)
    assert full["contenders"][0]["episodes"]["returns"] == teacher_returns().tolist()
    assert len(full["random"]["episodes"]["lengths"]) == 120


def test_every_key_of_the_record_is_explained() -> None:
    """Law: what a record holds is in the docstring of its module."""
    from kdcli.benchmarks import record as module

    def keys(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()

    record = to_json(of_three(), per_episode=True)
    opaque = {"versions", "machine", "score"}  # named as what they are made of
    shown = {k: v for k, v in record.items() if k not in opaque}
    shown["contenders"] = [{k: v for k, v in c.items() if k not in opaque} for c in record["contenders"]]
    missing = {key for key in keys(shown) | opaque if key not in (module.__doc__ or "")}
    assert missing <= {"schema"}


def test_sizes_and_speed_in_the_record() -> None:
    """Law: parameters are compared with the reference's, the speed-up is split, what was not timed is null."""
    teacher, small, nothing = to_json(of_three())["contenders"]
    assert (teacher["size"]["params"], small["size"]["params"]) == (2 * 64 + 64 + 64 + 1, 2 * 4 + 4 + 4 + 1)
    assert small["size"]["times_fewer_params"] == pytest.approx(257 / 17, rel=1e-3)
    assert teacher["speedup"]["architecture"] == teacher["speedup"]["torch"] == 1.0
    assert small["speedup"]["runtime"] == teacher["speedup"]["runtime"] > 1.0
    product = small["speedup"]["runtime"] * small["speedup"]["architecture"]
    assert small["speedup"]["total"] == pytest.approx(product, rel=0.3)
    assert (
        nothing["latency"]["onnxruntime"] is nothing["speedup"]["architecture"] is nothing["size"]["onnx_bytes"] is None
    )
    untimed = to_json(measured(BenchEntry("a", reach_teacher())))
    assert untimed["timing"] is None
    assert untimed["contenders"][0]["latency"] == {"torch": None, "onnxruntime": None}


def test_the_speed_up_is_split() -> None:
    """Law: total = runtime (reference: torch to onnxruntime) x architecture (reference to this); above 1 is faster."""

    def takes(us: float) -> Timing:
        return Timing([np.full(3, 1000 * us)], [np.ones(1)])

    times = {("teacher", "torch"): 40.0, ("teacher", "onnxruntime"): 10.0, ("small", "onnxruntime"): 5.0}
    times |= {("idle", "torch"): 20.0}
    found = Latencies({key: takes(us) for key, us in times.items()}, {"onnxruntime": takes(1.0)})
    record = to_json(replace(of_three(), latencies=found))
    splits = [entry["speedup"].pop("runtimes") for entry in record["contenders"]]
    assert splits[1]["onnxruntime"] == {"runtime": 4.0, "architecture": 2.0, "precision": None, "total": 8.0}
    assert splits[2]["torch"] == {"runtime": 1.0, "architecture": 2.0, "precision": None, "total": 2.0}
    assert [entry["speedup"] for entry in record["contenders"]] == [
        {"runtime": 4.0, "architecture": 1.0, "total": 4.0, "torch": 1.0},
        {"runtime": 4.0, "architecture": 2.0, "total": 8.0, "torch": None},
        {"runtime": 4.0, "architecture": None, "total": None, "torch": 2.0},
    ]


def test_precision_has_a_share_of_its_own() -> None:
    """Law: an agent with rounded weights is compared with the one of its shape in float32, where that takes part."""
    times = {"teacher": 12.0, "small": 6.0, "rounded": 3.0}
    found = Latencies({(name, "c"): Timing([np.full(3, us)]) for name, us in times.items()}, {})
    assert split(found, ("rounded", "teacher"), "c", "c", "small") == Speedup(1.0, 2.0, 2.0, 4.0)
    assert split(found, ("rounded", "teacher"), "c", "c", None) == Speedup(1.0, 4.0, None, 4.0)
    assert split(found, ("small", "teacher"), "c", "c", "small") == Speedup(1.0, 2.0, None, 2.0)
    small = reach_teacher(4)
    half = convert(small, None, ExportConfig(precision="fp16")).agent
    done = measured(
        BenchEntry("teacher", reach_teacher(), exported(reach_teacher())),
        BenchEntry("small", small, exported(small)),
        BenchEntry("rounded", None, half, plays="onnxruntime"),
        config=UNTIMED.model_copy(update={"episodes": 2, "latency_budget": 0.1}),
    )
    record = to_json(done)["contenders"]
    assert [c["precision"] for c in record] == ["fp32", "fp32", "fp16"]
    shares = [c["speedup"]["runtimes"]["onnxruntime"]["precision"] for c in record]
    assert shares[:2] == [None, None]
    assert shares[2] == pytest.approx(1.0, abs=0.3)


def test_bits_are_a_precision() -> None:
    """Law: weights on few levels are told by their bits, by the agent as by its file."""
    codes, scale = np.ones((1, 4), np.int8), np.float32(0.5)
    packed = reach_teacher(4).packed({"network.head.weight": Packed(codes, 4, scale=np.asarray(scale))})
    states = States(np.zeros((8, 2)))
    file = convert(packed, states, ExportConfig()).agent
    assert precision(BenchEntry("a", packed)) == precision(BenchEntry("b", None, file, plays="onnxruntime")) == "4 bits"
    assert precision(BenchEntry("c", reach_teacher(4))) == "fp32"


# --- what is heard and what goes wrong


def test_progress_counts_all_episodes() -> None:
    """Law: events count the episodes of all who play, each under the name of who is playing, and end complete."""
    heard: list[Event | Note] = []
    entries = [BenchEntry("a", reach_teacher()), BenchEntry("b", idle(reach_teacher()))]
    bench(entries, arena(entries, REACH, UNTIMED), UNTIMED, heard.append)
    events = [event for event in heard if isinstance(event, Event) and event.stage == "bench"]
    done = [event.done for event in events]
    assert done == sorted(done)
    assert (done[-1], {event.total for event in events}) == (60, {60})
    assert list(dict.fromkeys(event.facts["playing"] for event in events)) == ["a", "b", "random"]


def test_who_cannot_be_sampled_is_named() -> None:
    """Law: a policy without a distribution plays greedily, and that is said."""
    heard: list[Event | Note] = []
    policy = idle(reach_teacher()).policy
    policy.spread = None
    entries = [BenchEntry("a", reach_teacher()), BenchEntry("b", replace(reach_teacher(), policy=policy))]
    config = UNTIMED.model_copy(update={"sampled": True})
    found = bench(entries, arena(entries, REACH, config), config, heard.append)
    assert [note.text for note in heard if isinstance(note, Note)] == [
        "b: no distribution to sample from, so played greedily"
    ]
    assert [c["sampled"] for c in to_json(found)["contenders"]] == [True, False]


def twice() -> list[BenchEntry]:
    return [BenchEntry("a", reach_teacher()), BenchEntry("a", reach_teacher())]


def greedy_file() -> list[BenchEntry]:
    return [BenchEntry("file", None, exported(reach_teacher()), plays="onnxruntime")]


@pytest.mark.parametrize(
    ("made", "env", "what"),
    [
        (lambda: [BenchEntry("a", reach_teacher())], CHOOSE, "kdcli/Choose-v0 observes"),
        (
            lambda: [BenchEntry("a", reach_teacher()), BenchEntry("b", choose_teacher())],
            REACH,
            "b cannot play what a plays",
        ),
        (twice, REACH, "agents need names of their own"),
        (lambda: [BenchEntry("random", reach_teacher())], REACH, "agents need names of their own"),
        (list, REACH, "agents need names of their own"),
        (greedy_file, REACH, "file: reach cannot be sampled from"),
    ],
)
def test_misfits_are_refused_before_anyone_plays(
    made: Callable[[], list[BenchEntry]], env: EnvSpec, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: agents of another env, or without a name of their own, are a usage error of three lines, at once."""
    monkeypatch.setattr("kdcli.benchmarks.bench.Run", None)
    with pytest.raises(UsageError) as caught:
        measured(*made(), config=UNTIMED.model_copy(update={"sampled": True}), env=env)
    assert caught.value.what.startswith(what)
    assert len(caught.value.lines()) == 3


def test_torch_is_left_as_it_was() -> None:
    """Law: a benchmark changes no setting of torch, nor the contenders' weights."""
    agent = reach_teacher()
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    threads = torch.get_num_threads()
    measured(BenchEntry("a", agent, exported(agent)), config=UNTIMED.model_copy(update={"latency_budget": 0.05}))
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in agent.policy.state_dict().items())
