"""`kdcli prune` as a user runs it, on toy envs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.benchmarks.verdict import compare
from kdcli.cli.main import main
from kdcli.cli.prune import _cells
from kdcli.compression.file_costs import Cost
from kdcli.compression.pruning import Row
from kdcli.rollouts.evaluate import open_vector, play, seeds_from


def saved(agent: Agent, folder: Path) -> Path:
    return store.save(folder / f"{agent.name}.safetensors", agent, {})


@pytest.mark.parametrize(("make", "units"), [(reach_teacher, 4), (choose_teacher, 6)])
def test_lossless_leaves_what_acts(
    make: object, units: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: units that do nothing go, the returns stay what they were, and the same command gives the same bytes."""
    whole = make()  # type: ignore[operator]
    file, outputs = saved(whole, tmp_path), [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for output in outputs:
        assert main(["prune", str(file), "-o", str(output), "--lossless", "--states", "2000", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
    thin = store.load(outputs[0])
    assert thin.policy.network.hidden == (units,)
    assert answer["sizes"]["after"]["params"] == thin.n_params < answer["sizes"]["before"]["params"]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    vector = open_vector(whole.env, whole)
    before, after = (play(agent, vector, seeds_from(10_000, 8)).returns for agent in (whole, thin))
    assert before == pytest.approx(after, rel=1e-4)


def test_the_answer_is_a_table_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what a user reads is the sizes before and after, the proof, and where the file is."""
    file, output = saved(reach_teacher(), tmp_path), tmp_path / "thin.safetensors"
    assert main(["prune", str(file), "-o", str(output), "--lossless", "--states", "500"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["before", "after"]
    assert "acts alike on" in said
    assert said.splitlines()[-1] == str(output)
    assert main(["prune", str(file), "-o", str(output), "--lossless"]) == 2  # exists


def test_what_is_missing_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: without an env there are no real states, and nothing is written."""
    file, output = saved(replace(reach_teacher(), env=None), tmp_path), tmp_path / "thin.safetensors"
    assert main(["prune", str(file), "-o", str(output), "--lossless"]) == 2
    assert "--env" in capsys.readouterr().err
    assert main(["prune", str(file), "-o", str(output)]) == 2
    assert not output.exists()


def test_units_go_and_the_agent_recovers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: from 64 noisy units to what was asked for, scores beside sizes, the same bytes for the same command."""
    file = saved(noisy(reach_teacher()), tmp_path)
    asked = ("--to", "params<=25", "--rounds", "2", "--recover", "400", "--labels", "1k", "--states", "500")
    outputs = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for output in outputs:
        assert main(["prune", str(file), "-o", str(output), *asked, "--episodes", "8", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    before, lossless, pruned = answer["agents"]
    assert before["params"] >= lossless["params"] > 100 > 25 >= pruned["params"] == store.load(outputs[0]).n_params
    assert pruned["onnx_bytes"] < before["onnx_bytes"]
    assert pruned["comparison"]["score"] > 0.9
    assert len(answer["rounds"]) == 2
    assert answer["reached"]


def test_a_score_below_the_gate_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: without recovery the gate stops it; the file is the last agent that passed, and the table says where."""
    file, output = saved(noisy(reach_teacher()), tmp_path), tmp_path / "thin.safetensors"
    asked = ("--to", "params<=6", "--rounds", "1", "--recover", "0", "--states", "500", "--min-score", "0.9999")
    assert main(["prune", str(file), "-o", str(output), *asked, "--episodes", "8"]) == 1
    said = capsys.readouterr().out
    assert "stopped: at 5 parameters the score was" in said
    assert store.load(output).n_params > 100


def test_zeros_are_counted_honestly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: zeros that training leaves alone, bytes that they would save, and that no runtime is faster for them."""
    file, output = saved(noisy(reach_teacher()), tmp_path), tmp_path / "thin.safetensors"
    asked = ("--pattern", "2:4", "--importance", "magnitude", "--recover", "200", "--labels", "500", "--states", "500")
    assert main(["prune", str(file), "-o", str(output), *asked, "--episodes", "8", "--min-score", "-9"]) == 0
    said = capsys.readouterr().out
    assert "zeros change no shape" in said
    weight = store.load(output).policy.network.head.weight
    assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.1)


def noisy(agent: Agent) -> Agent:
    """The agent with small random weights where there were none: no unit is idle."""
    network = agent.policy.network
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
        network.linears()[0].bias += 0.02
    return agent


@pytest.mark.parametrize(("gain", "said"), [(0.0, "-"), (9.0, "1.000 [")])
def test_a_score_that_is_none_is_said_so(gain: float, said: str) -> None:
    """Law: where the agent is not shown to be better than random play, the table has no score, and no traceback."""
    chance = np.random.default_rng(0).normal(size=12)
    judged = compare(chance + gain, chance + gain, chance[::-1].copy(), 0.9)
    cost = Cost(100, 1.0, {1: 1.0, 256: 1.0})
    row = Row("pruned", "mlp:4", 10, 10, 8, cost, 40, float(chance.mean()), judged)
    assert _cells(row, sparse=False)[-1].startswith(said)
