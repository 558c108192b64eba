"""`kdcli bench` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ran import Ran
from toy_teachers import CHOOSE, choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.benchmarks import bench as work
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import export
from kdcli.reports import gates

QUICK = ("--episodes", "12", "--floor", "-600", "--latency-budget", "0", "--linear-budget", "0")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A teacher's agent file, a smaller ONNX file of the same policy, and others, by name."""
    made: dict[str, Agent] = {"teacher": reach_teacher(), "choose": choose_teacher()}
    made["homeless"] = replace(reach_teacher(), env=None)
    paths = {name: store.save(tmp_path / f"{name}.safetensors", agent, {}) for name, agent in made.items()}
    paths["small"] = tmp_path / "small.onnx"
    export(reach_teacher(4), paths["small"], None, ExportConfig())
    return {name: str(path) for name, path in paths.items()}


def test_agents_side_by_side(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: the answer names how it was played, has a row an agent, sizes and verdicts; without gates it is exit 0."""
    ran = kdcli("bench", files["teacher"], files["small"], *QUICK)
    assert ran.code == 0, ran.err
    assert ran.out.startswith(
        "kdcli/Reach-v0: 12 episodes (seeds 10000 to 10011), deterministic play, cut at 50 steps\n"
    )
    first = [line.split()[0] for line in ran.out.splitlines() if line.strip()]
    assert [first.count(name) for name in ("teacher", "small", "random", "linear")] == [2, 2, 1, 0]
    assert "15.1x" in ran.out
    assert "small: undecided" in ran.out


def test_one_agent_is_set_against_random_play(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: a lone agent is reported beside random play, and gates apply to it."""
    ran = kdcli("bench", files["small"], *QUICK, "--gate", "params<=17")
    assert (ran.code, "name a second agent" in ran.out) == (0, True)
    assert kdcli("bench", files["small"], *QUICK, "--gate", "params<17").code == 1


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (["score>=0.2"], 0),
        (["score>=0.95"], 3),
        (["score>=2"], 1),
        (["score>=0.95", "params<=1"], 1),
        (["small:agreement>=0.99", "latency_us<=5"], 3),
    ],
)
def test_exit_codes(kdcli: Callable[..., Ran], files: dict[str, str], asked: list[str], code: int) -> None:
    """Law: 0 all gates passed, 1 one failed, 3 one is undecided and none failed; the answer is given all the same."""
    options = [word for gate in asked for word in ("--gate", gate)]
    ran = kdcli("bench", files["teacher"], files["small"], *QUICK, *options)
    assert ran.code == code
    assert all(gate in ran.out for gate in asked)


def test_gates_say_how_long_to_play(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: without --episodes play ends with the gates decided, on score and tail; --max-episodes bounds it."""
    words = ("bench", files["teacher"], files["small"], *QUICK[2:], "--json")
    easy, hard, short = (
        json.loads(kdcli(*words, *more).out)
        for more in (
            ("--gate", "score>=0.2"),
            ("--gate", "score>=0.2", "--gate", "tail>=0.5"),
            ("--gate", "tail>=0.5", "--max-episodes", "60"),
        )
    )
    assert [[gate["verdict"] for gate in found["gates"]] for found in (easy, hard, short)] == [
        ["passed"],
        ["passed", "passed"],
        ["undecided"],
    ]
    assert easy["play"]["looks"] == [50]
    assert hard["play"]["episodes"] > 100
    assert short["play"]["episodes"] == 60


def test_json(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: one JSON object of the documented schema, with the gates, alone on stdout."""
    ran = kdcli("bench", files["teacher"], files["small"], *QUICK, "--json", "--gate", "params<=20", "--per-episode")
    found = json.loads(ran.out)
    assert found["schema"] == "kdcli.bench/1"
    assert [gate["verdict"] for gate in found["gates"]] == ["passed"]
    assert [c["file"]["name"] for c in found["contenders"]] == ["teacher.safetensors", "small.onnx"]
    assert [c["played_by"] for c in found["contenders"]] == ["torch", "onnxruntime"]
    assert len(found["contenders"][1]["episodes"]["returns"]) == 12


def test_reports_are_written(kdcli: Callable[..., Ran], files: dict[str, str], tmp_path: Path) -> None:
    """Law: -o writes what was answered, as JSON or Markdown by its name, and never over a file without --force."""
    page, record = tmp_path / "bench.md", tmp_path / "bench.json"
    words = ("bench", files["small"], *QUICK)
    assert [kdcli(*words, "-o", str(path)).code for path in (page, record)] == [0, 0]
    assert page.read_text().startswith("### kdcli/Reach-v0: 12 episodes")
    assert json.loads(record.read_text())["reference"] == "small"
    assert kdcli(*words, "-o", str(page)).code == 2
    assert kdcli(*words, "-o", str(page), "--force").code == 0


def test_the_reference_can_be_named(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: --reference (or --teacher) compares with another than the first, listed among the agents or not."""
    for option in ("--reference", "--teacher"):
        for agents in ([files["teacher"], files["small"]], [files["teacher"]]):
            found = json.loads(kdcli("bench", *agents, option, files["small"], *QUICK, "--json").out)
            assert [(c["name"], c["role"]) for c in found["contenders"]] == [
                ("small", "reference"),
                ("teacher", "candidate"),
            ]


def test_a_linear_student_is_shown_unasked(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: random play and a linear student are rows of their own; --no-baselines drops both; gates skip them."""
    words = ("bench", files["teacher"], files["small"], "--episodes", "12", "--latency-budget", "0")
    shown = json.loads(kdcli(*words, "--linear-budget", "2s", "--json", "--gate", "params<=20").out)
    assert [(c["name"], c["role"]) for c in shown["contenders"]][2:] == [("linear", "baseline")]
    linear = shown["contenders"][2]
    assert (linear["size"]["params"], linear["size"]["onnx_bytes"] > 0, linear["file"]) == (3, True, None)
    assert linear["score"]["score"] > 0.5
    assert [gate["agent"] for gate in shown["gates"]] == ["small"]
    dropped = kdcli(*words, "--no-baselines")
    assert "linear" not in dropped.out
    assert "\nrandom" not in dropped.out


def test_a_failed_latency_is_measured_twice(
    kdcli: Callable[..., Ran], files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a gate on a latency fails after a second measurement only, and that one counts."""
    calls = []
    real = work.time_all

    def counted(*args: Any) -> Any:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(work, "time_all", counted)
    words = ("bench", files["small"], "--episodes", "2", "--latency-budget", "50ms", "--json")
    ran = kdcli(*words, "--gate", "latency_us<=0.01")
    assert (ran.code, len(calls), json.loads(ran.out)["timing"]["repeated"]) == (1, 2, True)
    assert "measuring once more" in ran.err
    assert (kdcli(*words, "--gate", "latency_us<=1e6").code, len(calls)) == (0, 3)
    answers = iter([True, False])
    monkeypatch.setattr(gates.Gate, "holds", lambda gate, value: not next(answers))
    assert (kdcli(*words, "--gate", "latency_us<=1").code, len(calls)) == (0, 5)


def test_the_latency_lab(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: --runtimes says where calls are timed; each has its floor beside it, a speed-up is split by its causes."""
    quick = ("--episodes", "2", "--latency-budget", "0.3", "--no-baselines")
    words = ("bench", files["teacher"], files["small"], *quick, "--runtimes", "numpy,onnxruntime,c")
    found = json.loads(kdcli(*words, "--json").out)
    assert (found["timing"]["runtimes"], found["timing"]["base"]) == (["numpy", "onnxruntime", "c"], "numpy")
    assert list(found["timing"]["floors"]) == ["numpy", "onnxruntime", "c"]
    teacher, small = found["contenders"]
    assert {name for name, times in small["latency"].items() if times} == {"onnxruntime"}
    shares = teacher["speedup"]["runtimes"]["c"]
    assert shares["total"] == pytest.approx(shares["runtime"] * shares["architecture"], rel=0.01)
    ran = kdcli(*words)
    lines = [line.split()[:2] for line in ran.out.splitlines()]
    rows = [line for line in lines if len(line) == 2 and line[1] in found["timing"]["runtimes"]]
    assert rows == [["teacher", "numpy"], ["teacher", "onnxruntime"], ["teacher", "c"], ["small", "onnxruntime"]]
    assert "small is not timed in c" in ran.err


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["teacher", "choose"], "choose cannot play what teacher plays", "compare agents of one env"),
        (["teacher", "--env", "kdcli/Choose-v0"], "kdcli/Choose-v0 observes", "--env"),
        (["teacher", "--env", "kdcli/Reech-v0"], "cannot make kdcli/Reech-v0", "kdcli/Reach-v0"),
        (["homeless"], "no agent says which env it plays", "--env"),
        (["small", "--sampled"], "small: reach cannot be sampled from", "--outputs action,mean,log_std"),
        (["teacher", "--gate", "scores>1"], "unknown metric 'scores'", "did you mean 'score'?"),
        (["teacher", "--gate", "studnet:score>1"], "unknown agent in a gate", "choose"),
        (["teacher", "small", "--gate", "linear:score>1"], "unknown agent in a gate", "choose"),
        (["teacher", "-o", "bench.txt"], "cannot write bench.txt", "bench.json"),
        (["teacher", "--per-episode"], "--per-episode has nowhere to go", "--json"),
        (["teacher", "--episodes", "1"], "invalid value for --episodes", "--help"),
        (["teacher", "--runtimes", "torch,onnx"], "unknown runtime 'onnx'", "choose"),
        (["nothing.zip"], "nothing", "check the path"),
    ],
)
def test_mistakes_are_named(
    kdcli: Callable[..., Ran], files: dict[str, str], words: list[str], what: str, fix: str
) -> None:
    """Law: a mistake is exit 2 in three lines, before anyone has played, and nothing on stdout."""
    ran = kdcli("bench", *QUICK, *(files.get(word, word) for word in words))
    assert (ran.code, ran.out) == (2, "")
    said = ran.err.splitlines()
    lines = said[next(i for i, line in enumerate(said) if line.startswith("kdcli: ")) :]
    assert len(lines) == 3
    assert lines[0].startswith(f"kdcli: {what}")
    assert fix in lines[-1]
    assert "bench:" not in ran.err


def test_an_env_can_be_named(kdcli: Callable[..., Ran], files: dict[str, str]) -> None:
    """Law: --env says where to play when no file does, with a cap of --max-steps."""
    ran = kdcli("bench", files["homeless"], "--env", "kdcli/Reach-v0", "--max-steps", "9", *QUICK)
    assert (ran.code, "cut at 9 steps" in ran.out) == (0, True)
    assert CHOOSE.id not in ran.out
