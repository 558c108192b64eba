"""A benchmark as JSON values, schema `kdcli.bench/1`: what `bench --json` prints and reports are made of.

env                 id, kwargs, wrappers, max_steps as asked for
play                mode ("deterministic" or "sampled"), episodes, first_seed, max_steps (the cap that held),
                    looks (episodes after which the verdicts were looked at)
min_score, confidence, reference (a name), machine, versions
timing              rounds, calls (of each subject), threads, batch, repeated; runtimes, in order; base, the first that
                    the reference was timed in; floors: runtime -> times (as below) of a program that gives
                    its input back; floor: onnxruntime's {p50_us, p99_us}, or null; null without timing
random              return, success, motion (as below), seconds, shown (whether a report has a row of it)
contenders          in order, the reference first:
    name, role      "reference", "candidate" or "baseline"
    file            {name, sha256, size_bytes} of what was read, or null
    played_by       "torch" or "onnxruntime"
    sampled         whether its actions were drawn
    precision       of its weights: "fp32", "fp16", "8 bits", ...
    size            params, constants, multiply_adds, total_params (critics included), onnx_bytes, times_fewer_params
    latency         torch, onnxruntime, and every other runtime: times {p50_us, p99_us (one observation), batch_p50_us,
                    batch_p99_us (256 in one call), throughput_256 (observations a second)} or null
    speedup         runtime (reference: torch -> onnxruntime), architecture (onnxruntime: reference -> this), total,
                    torch (torch: reference -> this); ratios of interleaved medians, above 1 is faster, or null;
                    runtimes: for each, {runtime, architecture, precision, total} from the base (`speedup.Speedup`)
    return          n, mean, std, iqm, low, high (interval of the mean), minimum
    score           verdict, score, low, high, rule, rho, more_episodes, reason, ... (`verdict.Comparison`); null for
                    the reference
    tail            n, worst, cvar (mean of the worst `share`, 5 %), reference_worst, reference_cvar, loss, tail with
                    low and high (`tail.Tail`); null for the reference
    similarity      n_states, agreement, kl (nats, or null); null for the reference
    success         n, rate, low, high: of episodes that end with is_success in info; null where the env tells none
    motion          of real actions: smoothness (mean |a_t - a_t-1|), energy (mean a^2 a step); null for choices
    seconds         what playing took
    episodes        returns, lengths, success where it is told, one a seed; only when asked for
budget              seconds that compress was given for all, which bounds its episodes; only there
gates               as `kdcli.reports.gates.Outcome`; only where there are gates
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from kdcli.benchmarks.bench import Bench, Result
from kdcli.benchmarks.conduct import motion_of, success_of
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import BATCH, Latencies, Timing
from kdcli.benchmarks.machine import machine, versions
from kdcli.benchmarks.returns import Played
from kdcli.benchmarks.speedup import FULL, precision, split
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
            "looks": list(bench.looks),
        },
        "min_score": config.min_score,
        "confidence": config.confidence,
        "reference": bench.reference.entry.name,
        "machine": machine(),
        "versions": versions(),
        "timing": _timing(bench),
        "random": {
            "shown": config.baselines,
            "return": asdict(bench.random_returns),
            **_play(bench.random, per_episode, config.confidence),
        },
        "contenders": [_entry(bench, result, per_episode) for result in bench.results],
    }


def _timing(bench: Bench) -> Json | None:
    found = bench.latencies
    if found is None:
        return None
    counts = {"rounds": found.rounds, "calls": found.calls, "threads": 1, "batch": BATCH}
    floors = {runtime: _times(timing) for runtime, timing in found.floors.items()}
    floor = floors.get("onnxruntime")
    return {
        **counts,
        "repeated": bench.repeated,
        "runtimes": found.runtimes,
        "base": found.base(bench.reference.entry.name),
        "floor": floor and {"p50_us": floor["p50_us"], "p99_us": floor["p99_us"]},
        "floors": floors,
    }


def _play(played: Played, per_episode: bool, confidence: float) -> Json:
    own = played.episodes
    success, motion = success_of(own, confidence), motion_of(own)
    episodes: Json = {"returns": own.returns.tolist(), "lengths": own.lengths.tolist()}
    if success is not None:
        episodes["success"] = [None if np.isnan(one) else bool(one) for one in own.success]
    return {
        "success": success and asdict(success),
        "motion": motion and asdict(motion),
        "seconds": round(played.seconds, 3),
        **({"episodes": episodes} if per_episode else {}),
    }


def _entry(bench: Bench, result: Result, per_episode: bool) -> Json:
    entry, reference = result.entry, bench.reference
    fewer = reference.size.params / result.size.params if result.size.params else None
    return {
        "name": entry.name,
        "role": _role(entry, reference.entry),
        "file": entry.file and asdict(entry.file),
        "played_by": entry.plays,
        "sampled": bench.config.sampled and entry.is_stochastic,
        "precision": precision(entry),
        "size": {**asdict(result.size), "times_fewer_params": fewer and round(fewer, 3)},
        "latency": _latency(bench.latencies, entry.name),
        "speedup": {
            **_speedup(bench.latencies, entry.name, reference.entry.name),
            "runtimes": _splits(bench, result),
        },
        "return": asdict(result.returns),
        "score": result.comparison and asdict(result.comparison),
        "tail": result.tail and asdict(result.tail),
        "similarity": result.similarity and asdict(result.similarity),
        **_play(result.played, per_episode, bench.config.confidence),
    }


def _role(entry: BenchEntry, reference: BenchEntry) -> str:
    if entry is reference:
        return "reference"
    return "baseline" if entry.baseline else "candidate"


def _latency(found: Latencies | None, name: str) -> Json:
    runtimes = dict.fromkeys(["torch", "onnxruntime", *(found.runtimes if found else [])])
    return {runtime: found and _times(found.get(name, runtime)) for runtime in runtimes}


def _times(timing: Timing | None) -> Json | None:
    if timing is None:
        return None
    times = {key: round(getattr(timing, key), 3) for key in ("p50_us", "p99_us", "batch_p50_us", "batch_p99_us")}
    return {**times, "throughput_256": round(timing.throughput)}


def _splits(bench: Bench, result: Result) -> Json:
    """Runtime -> where the speed-up comes from."""
    found, name, reference = bench.latencies, result.entry.name, bench.reference.entry.name
    if found is None:
        return {}
    base, twin = found.base(reference), _twin(bench, result)
    return {
        runtime: {
            what: ratio and round(ratio, 3)
            for what, ratio in asdict(split(found, (name, reference), runtime, base, twin)).items()
        }
        for runtime in found.runtimes
    }


def _twin(bench: Bench, result: Result) -> str | None:
    """The name of the agent of the same shape in float32, if there is one."""
    if precision(result.entry) == FULL:
        return result.entry.name
    alike = [r for r in bench.results if r.size.multiply_adds == result.size.multiply_adds]
    return next((r.entry.name for r in alike if precision(r.entry) == FULL), None)


def _speedup(found: Latencies | None, name: str, reference: str) -> Json:
    ours, theirs, torch = (name, "onnxruntime"), (reference, "onnxruntime"), (reference, "torch")
    pairs = {
        "runtime": (theirs, torch),
        "architecture": (ours, theirs),
        "total": (ours, torch),
        "torch": ((name, "torch"), torch),
    }
    ratios = {what: found and found.times_faster(*pair) for what, pair in pairs.items()}
    return {what: ratio and round(ratio, 3) for what, ratio in ratios.items()}
