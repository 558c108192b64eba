"""Gates: what a pipeline asks, judged on a record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdcli.benchmarks import verdict
from kdcli.errors import Exit, UsageError
from kdcli.reports import gates
from kdcli.reports.config import ReportConfig
from kdcli.reports.gates import METRICS, Gate, check_agents, exit_code, judge, wants_retiming


def entry(name: str = "student", role: str = "candidate", **numbers: Any) -> dict[str, Any]:
    """A contender's record; `score` and `return` as (value, low, high)."""
    found: dict[str, Any] = {"name": name, "role": role, "score": None, "tail": None}
    found["return"] = {**interval("mean", (5.0, 4.0, 6.0)), "minimum": 1.0}
    found["size"] = {"params": 100, "multiply_adds": 90, "onnx_bytes": 1000}
    found["latency"] = {"onnxruntime": {"p50_us": 7.0, "p99_us": 20.0, "throughput_256": 10**6}, "torch": None}
    found["speedup"] = {"architecture": 1.2}
    found["similarity"] = {"agreement": 0.9, "kl": None}
    if "score" in numbers:
        found["score"] = interval("score", numbers["score"], numbers.get("n", 100))
    return found


def interval(key: str, values: tuple[float | None, ...], n: int = 100) -> dict[str, Any]:
    return {key: values[0], "low": values[1], "high": values[2], "n": n, "reason": "no score is defined"}


def verdicts(texts: str | list[str], *entries: dict[str, Any]) -> list[str]:
    asked = [Gate.parse(text) for text in ([texts] if isinstance(texts, str) else texts)]
    record = {"contenders": [entry("teacher", "reference"), *entries]}
    return [outcome.verdict for outcome in judge(record, asked)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sign", ["<=", ">=", "<", ">"])
def test_every_metric_can_be_asked_for(metric: str, sign: str) -> None:
    """Law: a gate reads as it prints, for every metric and sign, and is judged on a record without an error."""
    gate = Gate.parse(f" {metric} {sign} 0.5 ")
    assert gate == Gate(metric, sign, 0.5)
    assert Gate.parse(str(gate)) == gate
    assert verdicts(str(gate), entry(score=(1.0, 0.9, 1.1)))[0] in ("passed", "failed", "undecided")


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("a:score>=0.95", Gate("score", ">=", 0.95, "a")),
        ("run:3.zip:params<2_000", Gate("params", "<", 2000, "run:3.zip")),
        ("latency_us<=2e1", Gate("latency_us", "<=", 20)),
        ("a (2):return>-3.5", Gate("return", ">", -3.5, "a (2)")),
    ],
)
def test_gates_are_read(text: str, gate: Gate) -> None:
    """Law: [agent:]metric sign number; an agent's name may hold anything."""
    assert Gate.parse(text) == gate


@pytest.mark.parametrize(
    "text",
    ["", "score", "score>=", "score=0.9", "score==0.9", ">=1", "score>=x", "score>=nan", "score>=inf", "score>=1>2"],
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    """Law: a gate that cannot be read is a usage error that shows how one is written."""
    with pytest.raises(UsageError) as caught:
        Gate.parse(text)
    assert "cannot read the gate" in caught.value.what
    assert caught.value.fix


def test_an_unknown_metric_gets_a_suggestion() -> None:
    """Law: a misspelt metric is named with the valid ones and the nearest, also where a config holds it."""
    with pytest.raises(UsageError) as caught:
        ReportConfig(gate=("scor>=1",)).gates()
    assert caught.value.lines()[-1] == "did you mean 'score'?"
    assert all(metric in caught.value.why for metric in METRICS)
    with pytest.raises(UsageError, match="unknown agent"):
        check_agents([Gate.parse("b:score>=1")], ["a"])
    check_agents([Gate.parse("a:score>=1"), Gate.parse("score>=1")], ["a"])


@pytest.mark.parametrize(
    ("low", "high", "sign", "result"),
    [
        (0.95, 1.1, ">=", "passed"),
        (0.95, 1.1, ">", "undecided"),
        (0.96, 1.1, ">", "passed"),
        (0.90, 0.94, ">=", "failed"),
        (0.90, 0.95, ">=", "undecided"),
        (0.90, 0.95, ">", "failed"),
        (0.90, 1.10, ">=", "undecided"),
        (0.90, 0.95, "<=", "passed"),
        (0.90, 0.95, "<", "undecided"),
        (0.96, 1.10, "<=", "failed"),
        (0.90, 1.10, "<", "undecided"),
    ],
)
def test_score_and_return_are_judged_by_their_interval(low: float, high: float, sign: str, result: str) -> None:
    """Law: passed when every value of the interval would pass, failed when none would, else undecided."""
    value = (low + high) / 2
    assert verdicts(f"score{sign}0.95", entry(score=(value, low, high))) == [result]
    returns = {**entry(), "return": interval("mean", (value, low, high))}
    assert verdicts(f"return{sign}0.95", returns) == [result]
    assert verdicts(f"tail{sign}0.95", {**entry(), "tail": interval("tail", (value, low, high))}) == [result]


@pytest.mark.parametrize("n", [4, 12, 100])
@pytest.mark.parametrize("quality", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("min_score", [0.5, 0.95])
def test_a_gate_on_the_score_is_the_verdict(n: int, quality: float, min_score: float) -> None:
    """Law: `score>=m` and the verdict at min_score m say the same of the same episodes."""
    rng = np.random.default_rng(0)
    teacher, chance = rng.normal(100, 5, n), rng.normal(0, 5, n)
    judged = verdict.compare(quality * teacher, teacher, chance, min_score)
    record = entry(score=(judged.score, judged.low, judged.high), n=n)
    same = {"holds": "passed", "fails": "failed", "undecided": "undecided"}[judged.verdict]
    assert verdicts(f"score>={min_score}", record) == [same]
    assert gates._MIN_EPISODES == verdict.MIN_EPISODES


def test_few_episodes_show_nothing_good() -> None:
    """Law: below ten episodes an interval can fail a gate, never pass it, as in the verdict."""
    for low, high, result in ((0.96, 1.1, "undecided"), (0.8, 0.9, "failed")):
        assert verdicts("score>=0.95", entry(score=(low, low, high), n=9)) == [result]
    assert verdicts("score>=0.95", entry(score=(0.96, 0.96, 1.1), n=10)) == ["passed"]


def test_other_metrics_are_judged_as_they_are() -> None:
    """Law: counts and medians pass at the bound of <= and >=, and fail at that of < and >."""
    asked = ["params<=100", "params<100", "params>=100", "params>100", "agreement>=0.9", "latency_ratio>1.1"]
    assert verdicts(asked, entry()) == ["passed", "failed", "passed", "failed", "passed", "passed"]


def test_what_was_not_measured_is_undecided() -> None:
    """Law: a number that is missing neither passes nor fails, and the outcome says why."""
    record = {"contenders": [entry("t", "reference"), entry(score=(None, None, None))]}
    asked = [Gate.parse(text) for text in ("score>=0.9", "kl<=1", "latency_torch_us<=50")]
    outcomes = judge(record, asked)
    assert [outcome.verdict for outcome in outcomes] == ["undecided"] * 3
    assert [outcome.reason for outcome in outcomes] == ["no score is defined", *["it was not measured"] * 2]


def test_whom_a_gate_asks() -> None:
    """Law: every candidate, never reference or baseline; by name, anyone; the reference where it is alone."""
    people = [entry("a"), entry("b"), entry("linear", "baseline")]
    record = {"contenders": [entry("teacher", "reference"), *people]}
    names = [outcome.agent for outcome in judge(record, [Gate.parse("params<=1"), Gate.parse("linear:params<=1")])]
    assert names == ["a", "b", "linear"]
    alone = {"contenders": [entry("teacher", "reference")]}
    assert [outcome.agent for outcome in judge(alone, [Gate.parse("params<=1")])] == ["teacher"]
    with pytest.raises(UsageError, match="unknown agent"):  # it would pass unseen
        judge(alone, [Gate.parse("linear:params<=1")])


def test_exit_codes() -> None:
    """Law: a failure is 1 and beats what is undecided, which is 3; all passed, or nothing asked, is 0."""

    def code(*texts: str) -> Exit:
        record = {"contenders": [entry("t", "reference"), entry(score=(0.95, 0.9, 1.0))]}
        return exit_code(judge(record, [Gate.parse(text) for text in texts]))

    assert code() == code("params<=100") == Exit.DONE
    assert code("params<=100", "score>=0.95") == Exit.UNDECIDED
    assert code("score>=0.95", "params<=10") == Exit.GATE_FAILED
    assert (Exit.DONE, Exit.GATE_FAILED, Exit.UNDECIDED) == (0, 1, 3)


def test_only_a_failed_latency_is_measured_again() -> None:
    """Law: sizes do not change by measuring again, and what passed needs no second chance."""
    record = {"contenders": [entry("t", "reference"), entry()]}
    wants = {
        text: wants_retiming(judge(record, [Gate.parse(text)]))
        for text in (
            "latency_us<=1",
            "latency_ratio>=9",
            "p99_us<=1",
            "throughput>=1e9",
            "latency_us<=9",
            "params<=1",
            "kl<=1",
        )
    }
    assert [text for text, answer in wants.items() if answer] == list(wants)[:4]
