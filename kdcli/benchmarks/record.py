"""A benchmark as JSON values, schema `kdcli.bench/1`: what `bench --json` prints and reports are made of.

env                 id, kwargs, wrappers, max_steps as asked for
play                mode ("deterministic" or "sampled"), episodes, first_seed, max_steps (the cap that held)
min_score, confidence, reference (a name), machine, versions
timing              rounds, calls (of each subject), threads, batch, repeated, floor {p50_us, p99_us}: what
                    onnxruntime takes for an empty graph; null without timing
random              return (as below), seconds, shown (whether a report has a row of it)
contenders          in order, the reference first:
    name, role      "reference", "candidate" or "baseline"
    file            {name, sha256, size_bytes} of what was read, or null
    played_by       "torch" or "onnxruntime"
    sampled         whether its actions were drawn
    size            params, constants, multiply_adds, total_params (critics included), onnx_bytes, times_fewer_params
    latency         torch, onnxruntime: {p50_us, p99_us, throughput_256 (observations a second)} or null
    speedup         runtime (reference: torch -> onnxruntime), architecture (onnxruntime: reference -> this), total,
                    torch (torch: reference -> this); ratios of interleaved medians, above 1 is faster, or null
    return          n, mean, std, iqm, low, high (interval of the mean), minimum
    score           verdict, score, low, high, rule, rho, more_episodes, reason, ... (`verdict.Comparison`); null for
                    the reference
    similarity      n_states, agreement, kl (nats, or null); null for the reference
    seconds         what playing took
    episodes        returns, lengths, one a seed; only when asked for
gates               as `kdcli.reports.gates.Outcome`; only where there are gates
"""

from __future__ import annotations

from dataclasses import asdict

from kdcli.benchmarks.bench import Bench, Result
from kdcli.benchmarks.contender import Contender
from kdcli.benchmarks.latency import BATCH, Latencies, Timing
from kdcli.benchmarks.machine import machine, versions
from kdcli.benchmarks.returns import Played
from kdcli.spec import Json

SCHEMA = "kdcli.bench/1"


def to_json(bench: Bench, per_episode: bool = False) -> Json:
    """The benchmark as JSON values; with every episode's return and length where `per_episode`."""
    config, seeds = bench.config, bench.seeds
    return {
        "schema": SCHEMA,
        "env": bench.env.to_json(),
        "play": {
            "mode": "sampled" if config.sampled else "deterministic",
            "episodes": len(seeds.episodes),
            "first_seed": seeds.episodes[0],
            "max_steps": bench.cap,
        },
        "min_score": config.min_score,
        "confidence": config.confidence,
        "reference": bench.reference.contender.name,
        "machine": machine(),
        "versions": versions(),
        "timing": _timing(bench),
        "random": {
            "shown": config.baselines,
            "return": asdict(bench.random_returns),
            **_play(bench.random, per_episode),
        },
        "contenders": [_contender(bench, result, per_episode) for result in bench.results],
    }


def _timing(bench: Bench) -> Json | None:
    found = bench.latencies
    if found is None:
        return None
    floor = {"p50_us": round(found.floor.p50_us, 3), "p99_us": round(found.floor.p99_us, 3)}
    counts = {"rounds": found.rounds, "calls": found.calls, "threads": 1, "batch": BATCH}
    return {**counts, "repeated": bench.repeated, "floor": floor}


def _play(played: Played, per_episode: bool) -> Json:
    episodes = {"returns": played.episodes.returns.tolist(), "lengths": played.episodes.lengths.tolist()}
    return {"seconds": round(played.seconds, 3), **({"episodes": episodes} if per_episode else {})}


def _contender(bench: Bench, result: Result, per_episode: bool) -> Json:
    contender, reference = result.contender, bench.reference
    fewer = reference.size.params / result.size.params if result.size.params else None
    return {
        "name": contender.name,
        "role": _role(contender, reference.contender),
        "file": contender.file and asdict(contender.file),
        "played_by": contender.plays,
        "sampled": bench.config.sampled and contender.is_stochastic,
        "size": {**asdict(result.size), "times_fewer_params": fewer and round(fewer, 3)},
        "latency": _latency(bench.latencies, contender.name),
        "speedup": _speedup(bench.latencies, contender.name, reference.contender.name),
        "return": asdict(result.returns),
        "score": result.comparison and asdict(result.comparison),
        "similarity": result.similarity and asdict(result.similarity),
        **_play(result.played, per_episode),
    }


def _role(contender: Contender, reference: Contender) -> str:
    if contender is reference:
        return "reference"
    return "baseline" if contender.baseline else "candidate"


def _latency(found: Latencies | None, name: str) -> Json:
    if found is None:
        return {"torch": None, "onnxruntime": None}
    return {"torch": _times(found.get(name, "torch")), "onnxruntime": _times(found.get(name, "onnxruntime"))}


def _times(timing: Timing | None) -> Json | None:
    if timing is None:
        return None
    p50, p99 = round(timing.p50_us, 3), round(timing.p99_us, 3)
    return {"p50_us": p50, "p99_us": p99, "throughput_256": round(timing.throughput)}


def _speedup(found: Latencies | None, name: str, reference: str) -> Json:
    ours, theirs, torch = (name, "onnxruntime"), (reference, "onnxruntime"), (reference, "torch")
    pairs = {
        "runtime": (theirs, torch),
        "architecture": (ours, theirs),
        "total": (ours, torch),
        "torch": ((name, "torch"), torch),
    }
    ratios = {what: found and found.times_faster(*pair) for what, pair in pairs.items()}  # type: ignore[arg-type]
    return {what: ratio and round(ratio, 3) for what, ratio in ratios.items()}
