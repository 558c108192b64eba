"""What the numbers of a benchmark mean, in sentences under its tables."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kdcli.durations import format_duration
from kdcli.reports.table import number
from kdcli.spec import Json

_SLOWER = 0.95  # two sessions of one file differ by less

_SHARE = 3.5  # of the time that playing takes: a third of the budget, with room to spare

_RULES = {
    "spread": "by the spread of {n} paired episodes",
    "falls": "by falls that {n} episodes may have missed",
}


def notes(record: Json) -> list[str]:
    """Verdicts with what they rest on, how the speed came about, and what to beware of."""
    others = record["contenders"][1:]
    found = [note for entry in others for note in _about(record, entry)]
    about = (_about_falls, _about_reference, _about_runtime, _about_timing)
    return [*found, *(note for tell in about for note in tell(record))]


def _about(record: Json, entry: Json) -> Iterator[str]:
    yield _verdict(record, entry)
    if entry["role"] == "candidate" and entry["tail"]["tail"] is not None:
        yield _tail(record, entry)
    name, reference, speedup = entry["name"], record["reference"], entry["speedup"]
    runtime, network, total = speedup["runtime"], speedup["architecture"], speedup["total"]
    if network is not None and network < _SLOWER:
        yield f"{name} is slower than {reference} in onnxruntime: {network:.2f} times its speed"
    if total is not None and entry["role"] == "candidate":
        parts = f"{runtime:.2f}x from the runtime, {network:.2f}x from the network"
        yield f"{name} in onnxruntime is {total:.2f}x as fast as {reference} in torch: {parts}"


def _verdict(record: Json, entry: Json) -> str:
    score = entry["score"]
    text = f"{entry['name']}: {score['verdict']}, {score['reason']}"
    if score["rule"]:
        text += f" ({_RULES[score['rule']].format(n=score['n'])})"
    if score["rho"] is not None:
        text += f"; correlation with {record['reference']} {score['rho']:.2f}"
    if score["more_episodes"]:
        text += f"; with scores like these {_ask(record, score)} would decide"
    return text


def _ask(record: Json, score: Json) -> str:
    """Episodes to ask for, and the time they need where that was bounded: a third of the budget is for playing."""
    episodes = _up(score["n"] + score["more_episodes"])
    if "budget" not in record:
        return f"--episodes {episodes}"
    seconds = sum(played["seconds"] for played in (record["random"], *record["contenders"]))
    needed = max(record["budget"], _up(math.ceil(_SHARE * seconds * episodes / score["n"])))
    return f"--episodes {episodes} --budget {format_duration(needed)}"


def _up(n: int) -> int:
    """Rounded up to two digits."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return -(-n // unit) * unit


def _tail(record: Json, entry: Json) -> str:
    tail, reference = entry["tail"], record["reference"]
    return (
        f"{entry['name']}'s worst {100 * tail['share']:g} % of episodes return {number(tail['cvar'])} on average, "
        f"{reference}'s {number(tail['reference_cvar'])}: tail {number(tail['tail'])} "
        f"[{number(tail['low'])}, {number(tail['high'])}]"
    )


def _about_falls(record: Json) -> Iterator[str]:
    """What a verdict allows for, and what it does not."""
    judged = [entry["score"] for entry in record["contenders"][1:] if entry["score"]["score"] is not None]
    if not judged:
        return
    floor, score = max(score["floor"] for score in judged), judged[0]
    yield (
        f"{score['n']} episodes can miss falls in up to {100 * score['unseen']:.2g} % of all; scores allow for that "
        f"down to a return of {number(floor)}, not below (--floor)"
    )


def _about_reference(record: Json) -> Iterator[str]:
    reference = record["contenders"][0]
    returns, chance = reference["return"], record["random"]["return"]
    if not record["contenders"][1:]:
        gap = f"{number(returns['mean'])}, random play {number(chance['mean'])}"
        yield f"{reference['name']} returns {gap}; name a second agent to compare it with"
    acts, total = reference["size"]["params"], reference["size"]["total_params"]
    if total is not None and total > acts:
        yield f"{reference['name']}'s checkpoint has {total:,} parameters; only the {acts:,} that act are counted"


def _about_runtime(record: Json) -> Iterator[str]:
    """How much of a call is not the policy."""
    timing = record["timing"]
    timed = [c for c in record["contenders"] if c["latency"]["onnxruntime"] and c["role"] != "baseline"]
    if timing is None or not timed:
        return
    fastest = min(timed, key=lambda c: c["latency"]["onnxruntime"]["p50_us"])
    floor, whole = timing["floor"]["p50_us"], fastest["latency"]["onnxruntime"]["p50_us"]
    yield f"onnxruntime's own empty call takes {floor:.1f} of {fastest['name']}'s {whole:.1f} us"


def _about_timing(record: Json) -> Iterator[str]:
    timing = record["timing"]
    if timing is None:
        return
    if timing["repeated"]:
        yield "latencies are those of a second measurement, made because a gate on the first one failed"
    load, cores = record["machine"]["load"], record["machine"]["cores"]
    if load is not None and load > cores:
        yield f"the machine was busy (load {load} on {cores} cores): trust ratios, not microseconds"
