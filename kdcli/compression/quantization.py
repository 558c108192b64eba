"""Quantization joined with distillation, export and bench: what it buys in the file that is shipped, and what it costs.

An agent is quantized in one way, or in several of which the best is kept: the smallest file, or the fastest, of those
that hold. A way that is slower is never kept for its speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.actor import Actor, env_of
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.agents.packed_weights import bits_a_weight
from kdcli.agents.states import States
from kdcli.benchmarks.bench import bench
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.verdict import Comparison, Verdict
from kdcli.compression.file_costs import FASTER, Cost, costs
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import copy_agent
from kdcli.distillation.loop import Judge, distill
from kdcli.distillation.online import judge_of
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector
from kdcli.envs.vector import Vector
from kdcli.errors import option
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played_in
from kdcli.exporters.step import convert
from kdcli.progress import Listener, Note, silent
from kdcli.quantization.config import QuantizeConfig
from kdcli.quantization.plan import Plan
from kdcli.quantization.qat import settle
from kdcli.quantization.quantize import Recover, quantize
from kdcli.quantization.sensitivity import Play, mixed
from kdcli.rollouts.evaluate import open_vector

FLOATS = "floats"
# What `auto` tries: scheme of the weights, bits of activations and observations, and a calibration other than the one
# asked for. Weights alone on few levels are floats again once the file is loaded, and never faster; with activations on
# grids, too, a file is no smaller.
WAYS = {
    "bytes": tuple((scheme, 0, 0, "") for scheme in ("fp16", "int8", "kmeans:16", "int4", "kmeans:8")),
    "latency": (("int8", 8, 8, ""), ("int8:rows=no", 8, 8, ""), ("int8", 8, 8, "dynamic")),
}
_ROUNDS = 4
_WALK = 2048  # states along which agents are compared for mixed precision


@dataclass(frozen=True, eq=False)
class Way:
    """One way to quantize, and what came of it.

    Attributes:
        bits: of storage for a weight, levels and scales included.
        agent_bytes: length of the agent's file.
        cost: of its ONNX export, beside that of the floats.
        score: with its interval; the verdict is None where it was not played.
    """

    name: str
    agent: Agent
    file: OnnxAgent
    bits: float
    agent_bytes: int
    cost: Cost
    score: tuple[float | None, float | None, float | None] = (None, None, None)
    verdict: Verdict | None = None


@dataclass(frozen=True, eq=False)
class Quantized:
    """The ways that were measured, the floats first; and the one that is kept."""

    ways: tuple[Way, ...]
    kept: Way

    @property
    def verdict(self) -> Verdict:
        """Of the one that is kept, which was played."""
        assert self.kept.verdict is not None
        return self.kept.verdict


def run(agent: Agent, config: QuantizeConfig, teacher: Actor | None = None, listener: Listener = silent) -> Quantized:
    """Quantize and measure; `teacher` labels the states that training needs, by default the agent itself.

    Of several ways, those that are no better than the floats in what is asked for are not played.

    Raises:
        UsageError: the env is not known, or an option that cannot be read.
    """
    ways = WAYS[config.target] if config.auto else ((config.scheme, config.activations, config.inputs, ""),)
    plans = {_named(*way): Plan.parse(*way[:3], way[3] or config.calibration) for way in ways}
    vector = open_vector(env_of(agent), agent)
    states = played_in(vector, agent, config.states, config.seed)
    recover = _recovery(agent, teacher or agent, config, listener) if config.updates else None
    if config.mixed and not config.auto:
        play = _play(vector, config.seed)
        plans = {f"mixed {config.mixed:g}": mixed(agent, plan, config.mixed, play) for plan in plans.values()}
    made = {FLOATS: agent, **{name: quantize(agent, plan, states, recover) for name, plan in plans.items()}}
    floats, *others = _measured(made, states, config, listener)
    playing = [way for way in others if not config.auto or _is_better(way, floats, config)]
    judged = _judged([floats, *playing], vector, config, listener) if playing else {}
    vector.close()
    done = (replace(floats, score=(1.0, None, None), verdict="holds"), *(judged.get(way.name, way) for way in others))
    return Quantized(done, _kept(done, config, listener) if config.auto else done[1])


def _play(vector: Vector, seed: int) -> Play:
    """Where an agent goes by itself."""
    return lambda agent: played_in(vector, agent, _WALK, seed)


def _named(scheme: str, activations: int, inputs: int, calibration: str) -> str:
    dynamic = " dynamic" if calibration == "dynamic" else ""
    return f"{scheme} A{activations} I{inputs}{dynamic}" if activations else scheme


def _is_better(way: Way, floats: Way, config: QuantizeConfig) -> bool:
    """Whether it is smaller, or faster, than the floats."""
    if config.target == "bytes":
        return way.cost.onnx_bytes < floats.cost.onnx_bytes
    return (way.cost.faster[config.batch] or 0.0) > FASTER


def _kept(ways: Sequence[Way], config: QuantizeConfig, listener: Listener) -> Way:
    """The best that holds; the floats where none is better."""
    floats, *others = ways
    holding = [way for way in others if way.verdict == "holds"]
    if holding and config.target == "bytes":
        return min(holding, key=lambda way: way.cost.onnx_bytes)
    if holding:
        return max(holding, key=lambda way: way.cost.faster[config.batch] or 0.0)
    what = "smaller" if config.target == "bytes" else f"faster in calls of {config.batch}"
    open_ = sum(way.verdict == "undecided" for way in others)
    more = f" ({open_} undecided: more {option('episodes')} would tell)" if open_ else ""
    listener(Note(f"nothing helps: no way is {what} and holds {config.min_score:g}{more}; the floats are kept"))
    return floats


def _measured(made: dict[str, Agent], states: States, config: QuantizeConfig, listener: Listener) -> list[Way]:
    """What every file costs; not yet played."""
    files = {name: convert(agent, states, ExportConfig()).agent for name, agent in made.items()}
    found = costs(files, states.observations, config.latency_budget, listener)
    return [
        Way(
            name=name,
            agent=agent,
            file=files[name],
            bits=bits_a_weight(agent.policy),
            agent_bytes=len(artifact.pack(store.describe(agent), store.tensors_of(agent))),
            cost=found[name],
        )
        for name, agent in made.items()
    ]


def _judged(ways: Sequence[Way], vector: Vector, config: QuantizeConfig, listener: Listener) -> dict[str, Way]:
    """The ways behind the first, scored against it on the same episodes."""
    settings = BenchConfig(
        max_episodes=config.episodes,
        seed=config.seed,
        min_score=config.min_score,
        confidence=config.confidence,
        latency_budget=0.0,
        baselines=False,
    )
    entries = [BenchEntry(way.name, way.agent, way.file, plays="onnxruntime") for way in ways]
    found = bench(entries, vector, settings, listener)
    return {way.name: _scored(way, found[way.name].comparison) for way in ways[1:]}


def _scored(way: Way, judged: Comparison | None) -> Way:
    assert judged is not None  # only the first, with which others are compared, has none
    return replace(way, score=(judged.score, judged.low, judged.high), verdict=judged.verdict)


def _recovery(agent: Agent, teacher: Actor, config: QuantizeConfig, listener: Listener) -> Recover:
    """Training in the agent's own env."""
    assert agent.env is not None
    training_config = DistillConfig(
        labels=max(1000, 2 * config.updates),
        rounds=_ROUNDS,
        updates=config.updates,
        lr="cosine:0.001->0.00001",
        data="student",
        seed=config.seed,
    )
    collector = RolloutCollector(teacher, open_vector(agent.env, teacher, training_config.envs), config.seed)
    first = collector.collect(None, 1.0, training_config.labels // _ROUNDS)
    pool = ReplayPool(teacher, first, training_config.capacity, collector, preprocess=agent.preprocess)
    return recovery(teacher, training_config, pool, judge_of(teacher, agent.env, training_config), listener)


def recovery(
    teacher: Actor, config: DistillConfig, pool: ReplayPool, judge: Judge, listener: Listener = silent
) -> Recover:
    """Training of a fake-quantized agent on a teacher's labels.

    What comes back is the best round by the return of what is settled, or the agent that was given where none is
    better: training must not cost what rounding has not.
    """

    def judged(found: Actor | None) -> float:
        return judge(settle(found) if isinstance(found, Agent) else found)

    def recover(agent: Agent) -> Agent:
        before, rounded = judged(agent), copy_agent(agent)
        pool.count_anew()
        done = distill(teacher, config, pool, judged, listener, start=agent)
        return done.student if max(r.mean_return for r in done.rounds) >= before else rounded

    return recover
