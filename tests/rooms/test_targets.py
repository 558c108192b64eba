"""Targets: read, measured, and what a search makes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from toy_teachers import reach_teacher

from kdcli.benchmarks.target import METRICS, TIMED, Target, met
from kdcli.bounds import Bound
from kdcli.compression import target_filter as fitting
from kdcli.compression import targets
from kdcli.compression.search import PASSES, search_best
from kdcli.compression.size_grid import Architecture
from kdcli.compression.target_filter import fit, measure_twice
from kdcli.compression.targets import measure, read_targets
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import sampled
from kdcli.exporters.step import convert
from kdcli.progress import Event, Note

STATES = sampled(reach_teacher(), 80, 0)


@pytest.mark.parametrize(
    ("text", "bound", "runtime"),
    [
        ("params<=2000", Bound("params", "<=", 2000), "onnxruntime"),
        ("c:bytes<=8_192", Bound("bytes", "<=", 8192, "c"), "c"),
        ("openvino:latency_us@256<3e2", Bound("latency_us", "<", 300, "openvino", 256), "openvino"),
        (" latency_us@1 <= 8 ", Bound("latency_us", "<=", 8, "", 1), "onnxruntime"),
    ],
)
def test_targets_are_read(text: str, bound: Bound, runtime: str) -> None:
    """Law: [runtime:]metric[@batch] sign number; without a runtime it is onnxruntime; written out it reads the same."""
    target = Target.parse(text)
    assert (target.bound, target.runtime) == (bound, runtime)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("latency_us=8", "cannot read the target", "onnxruntime:latency_us<=8"),
        ("latency_us<=inf", "cannot read the target", "0.95"),
        ("latency<=8", "unknown metric 'latency'", "did you mean 'latency_us'"),
        ("latency_us@64<=8", "cannot measure the target", "write"),
        ("params@256<=8", "cannot measure the target", "write"),
        ("onnx:latency_us<=8", "unknown runtime 'onnx'", "choose"),
        ("onnxruntime:ram<=8", "cannot measure the target", "c:ram"),
        ("torch:bytes<=8", "cannot measure the target", "name c"),
    ],
)
def test_what_is_no_target_is_refused(text: str, what: str, fix: str) -> None:
    """Law: a target that cannot be read or measured is a usage error that says how one is written."""
    with pytest.raises(UsageError) as caught:
        read_targets([text])
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_target_needs_its_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: what a runtime needs is looked for when the target is read, and only where the runtime is used."""
    monkeypatch.setenv("CC", "no-such-compiler")
    read_targets(["c:params<=8"])
    with pytest.raises(UsageError, match="C cannot be exported here"):
        read_targets(["c:bytes<=8"])


def test_everything_is_measured() -> None:
    """Law: sizes are those of the files and headers that would be deployed; times are the lab's."""
    agent = reach_teacher(4)
    texts = [f"{metric}<=1" for metric in METRICS if metric != "ram"]
    texts += ["c:bytes<=1", "c:ram<=1", "c:latency_us<=1", "onnxruntime:latency_us@256<=1", "numpy:bytes<=1"]
    found = {one.target: one.value for one in measure({"a": agent}, read_targets(texts), STATES)["a"]}
    files = {form: convert(agent, STATES, ExportConfig(format=form)).files for form in ("onnx", "c", "numpy")}
    header = files["c"][".h"].decode()
    assert (found["params<=1"], found["macs<=1"]) == (17, 12)
    assert (found["bytes<=1"], found["numpy:bytes<=1"]) == (len(files["onnx"][".onnx"]), len(files["numpy"][".npz"]))
    assert f"{found['c:bytes<=1']} bytes of constants (flash), {found['c:ram<=1']} bytes of workspace (RAM)" in header
    assert 0 < found["c:latency_us<=1"] < found["latency_us<=1"] <= found["p99_us<=1"]
    assert found["onnxruntime:latency_us@256<=1"] > found["latency_us<=1"]


def test_what_is_met() -> None:
    """Law: a value is within the bound as its sign says."""
    assert [met(Target.parse("params<=17"), value).holds for value in (16, 17, 18)] == [True, True, False]
    assert [met(Target.parse("params<17"), value).holds for value in (16, 17)] == [True, False]


def trainer(heard: list[Event | Note]) -> Any:
    """Of a workshop, what fitting needs; a rung is named after the width of its student."""
    return SimpleNamespace(
        untrained=lambda architecture: reach_teacher(int(architecture.student)),
        states=lambda n: STATES,
        listener=heard.append,
    )


RUNGS = [Architecture(str(width), 4 * width + 1) for width in (4, 8, 16, 32)]


def test_sizes_that_fit_are_found_before_training() -> None:
    """Law: the rungs that meet all targets are kept, in order; where none does, the error names the smallest."""
    heard: list[Event | Note] = []
    assert fit(trainer(heard), RUNGS, read_targets(["params<=70", "c:bytes<=300"])) == RUNGS[:3]
    assert [note.text for note in heard if isinstance(note, Note)] == [
        "3 of 4 sizes fit; the largest is 16: params<=70 (65), c:bytes<=300 (260)"
    ]
    with pytest.raises(UsageError) as caught:
        fit(trainer(heard), RUNGS, read_targets(["params<=70", "c:bytes<=20"]))
    assert caught.value.lines()[:2] == ["no student meets c:bytes<=20", "the smallest, 4 of 17 parameters, has 68"]


def test_a_missed_latency_is_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: only a target about time is measured again, once, and the second measurement counts."""
    values = iter([9.0, 7.0, 3.0])
    calls: list[int] = []
    monkeypatch.setattr(targets, "_timed", lambda *_: next(values))
    monkeypatch.setattr(targets, "_times", lambda *_: calls.append(1) or SimpleNamespace())
    asked = read_targets(["latency_us<=8", "params<=1"])
    found = measure_twice(reach_teacher(4), asked, STATES, lambda _: None)
    assert ([one.holds for one in found], len(calls)) == ([True, False], 2)
    assert [one.holds for one in measure_twice(reach_teacher(4), asked, STATES, lambda _: None)] == [True, False]
    assert (len(calls), fitting.FEW, set(TIMED) <= set(METRICS)) == (3, 256, True)


def test_the_best_is_looked_for_from_the_top() -> None:
    """Law: under a target the largest sizes are tried first, then again, until time or turns are over."""
    asked: list[tuple[int, int]] = []

    def attempt(index: int, before: int) -> Any:
        asked.append((index, before))
        return None if len(asked) > 4 else SimpleNamespace(index=index)

    assert [c.index for c in search_best(RUNGS, attempt)] == [3, 2, 1, 3]
    assert asked[-1] == (2, 1)
    assert len(search_best(RUNGS[:1], lambda index, before: SimpleNamespace(index=index))) == PASSES  # type: ignore[arg-type,return-value]
