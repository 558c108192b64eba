"""Gates: `score>=0.95`, `student:latency_us<=20`. Each is passed, failed or undecided on the record of a benchmark.

Return, score, tail and success are judged by their whole interval: a gate that the interval contains is undecided. All
other numbers are judged as they are. Latencies are medians, and are to be measured a second time before a gate on them
fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from kdcli.bounds import Bound
from kdcli.errors import Exit, UsageError, unknown

if TYPE_CHECKING:
    from kdcli.spec import Json

Verdict = Literal["passed", "failed", "undecided"]

# metric -> where it stands in a contender's record, and what it is.
METRICS: dict[str, tuple[str, str]] = {
    "score": ("score.score", "share of the reference's gain over random play, by its interval"),
    "return": ("return.mean", "mean return, by its interval"),
    "success": ("success.rate", "share of episodes that end with is_success in info, by its interval"),
    "smoothness": ("motion.smoothness", "mean change of a real action from step to step"),
    "energy": ("motion.energy", "mean square of a real action, a step"),
    "tail": ("tail.tail", "mean of the worst 5 % of episodes beside the reference's, 1 is equal, by its interval"),
    "cvar": ("tail.cvar", "that mean as a return, of the episodes played"),
    "worst": ("return.minimum", "lowest return of an episode, of those played"),
    "agreement": ("similarity.agreement", "same greedy action on the reference's states, 1 is always"),
    "kl": ("similarity.kl", "KL(reference || agent), nats"),
    "params": ("size.params", "weights and biases that act"),
    "macs": ("size.multiply_adds", "multiply-adds a decision"),
    "bytes": ("size.onnx_bytes", "length of the ONNX file"),
    "latency_us": ("latency.onnxruntime.p50_us", "median of one decision in onnxruntime, microseconds"),
    "p99_us": ("latency.onnxruntime.p99_us", "99th percentile of it, microseconds"),
    "latency_torch_us": ("latency.torch.p50_us", "median of one decision in torch, microseconds"),
    "latency_ratio": ("speedup.architecture", "times faster than the reference, both in onnxruntime"),
    "throughput": ("latency.onnxruntime.throughput_256", "observations a second in onnxruntime, 256 at a time"),
}
TIMED = ("latency_us", "p99_us", "latency_torch_us", "latency_ratio", "throughput")
_WITH_INTERVAL = {"score": "score", "return": "return", "success": "success", "tail": "tail"}
_UNMEASURED = "it was not measured"
_UNTOLD = {"success": "no info of the env says is_success"}
_EXAMPLE = "score>=0.95, latency_us<=20 or student:params<=2000"
_MIN_EPISODES = 10  # as the verdict: fewer never show that an agent is good


@dataclass(frozen=True)
class Gate:
    """`metric` `sign` `bound`, asked of the agent called `agent`; of every candidate where that is empty."""

    metric: str
    sign: str
    bound: float
    agent: str = ""

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read one gate.

        Raises:
            UsageError: it is not of the form [agent:]metric<=number, or the metric is not known.
        """
        found = Bound.parse(text, "gate", METRICS, _EXAMPLE)
        if found.batch is not None:
            raise UsageError(f"cannot read the gate {text!r}", "a gate has no @batch", f"write {_EXAMPLE}")
        return cls(found.metric, found.sign, found.number, found.subject)

    def __str__(self) -> str:
        return str(Bound(self.metric, self.sign, self.bound, self.agent))

    def holds(self, value: float) -> bool:
        """Whether one number is on the right side."""
        return Bound(self.metric, self.sign, self.bound).holds(value)


@dataclass(frozen=True)
class Outcome:
    """What a gate came to for one agent; `low` and `high` are its interval where it was judged by one."""

    gate: str
    agent: str
    metric: str
    verdict: Verdict
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_json(self) -> Json:
        """JSON values."""
        return asdict(self)


def check_agents(gates: Iterable[Gate], names: Iterable[str]) -> None:
    """Raise UsageError when a gate asks for an agent that is not there."""
    known = list(names)
    for gate in gates:
        if gate.agent and gate.agent not in known:
            raise unknown("agent in a gate:", gate.agent, known)


def judge(record: Json, gates: Sequence[Gate]) -> list[Outcome]:
    """Every gate on every agent that it is asked of: by name, else all candidates, else the only agent there is.

    Raises:
        UsageError: a gate asks for an agent that is not there; it would pass unseen.
    """
    entries = record["contenders"]
    check_agents(gates, [found["name"] for found in entries])
    candidates = [found for found in entries if found["role"] == "candidate"] or entries[:1]
    asked = {gate: [c for c in entries if c["name"] == gate.agent] if gate.agent else candidates for gate in gates}
    return [_outcome(gate, entry) for gate in gates for entry in asked[gate]]


def exit_code(outcomes: Iterable[Outcome]) -> Exit:
    """1 when a gate failed, else 3 when one is undecided, else 0."""
    verdicts = {outcome.verdict for outcome in outcomes}
    if "failed" in verdicts:
        return Exit.GATE_FAILED
    return Exit.UNDECIDED if "undecided" in verdicts else Exit.DONE


def wants_retiming(outcomes: Iterable[Outcome]) -> bool:
    """Whether a gate failed on a latency: a loaded machine makes one measurement of those too few."""
    return any(outcome.verdict == "failed" and outcome.metric in TIMED for outcome in outcomes)


def _outcome(gate: Gate, entry: Json) -> Outcome:
    value = _look_up(entry, METRICS[gate.metric][0])
    found = Outcome(
        str(gate), entry["name"], gate.metric, "undecided", value, reason=_UNTOLD.get(gate.metric, _UNMEASURED)
    )
    if value is None:
        return found if gate.metric != "score" else _without_score(found, entry)
    if gate.metric not in _WITH_INTERVAL:
        return _settled(found, "passed" if gate.holds(value) else "failed")
    around = entry[_WITH_INTERVAL[gate.metric]]
    return _by_interval(gate, found, around)


def _settled(found: Outcome, verdict: Verdict, reason: str = "", **interval: float) -> Outcome:
    return Outcome(**{**asdict(found), "verdict": verdict, "reason": reason, **interval})


def _without_score(found: Outcome, entry: Json) -> Outcome:
    compared = entry["score"]
    reason = compared["reason"] if compared else "the reference has no score: it is what others are compared with"
    return _settled(found, "undecided", reason)


def _by_interval(gate: Gate, found: Outcome, around: Json) -> Outcome:
    interval = {"low": around["low"], "high": around["high"]}
    ends = [gate.holds(end) for end in interval.values()]
    if not any(ends):
        return _settled(found, "failed", **interval)
    if not all(ends):
        return _settled(found, "undecided", f"the interval contains {gate.bound:g}", **interval)
    if around["n"] < _MIN_EPISODES:
        return _settled(found, "undecided", f"fewer than {_MIN_EPISODES} episodes show nothing good", **interval)
    return _settled(found, "passed", **interval)


def _look_up(entry: Json, path: str) -> float | None:
    found: Any = entry
    for key in path.split("."):
        found = found and found.get(key)  # a record of before may lack what is measured now
    return found
