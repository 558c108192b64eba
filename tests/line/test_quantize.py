"""`kdcli quantize` as a user runs it: what is measured is said, and nothing is kept that does not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.agents.packed_weights import held
from kdcli.agents.states import States
from kdcli.cli.main import main
from kdcli.networks.packed_weights import Packed
from kdcli.quantization.plan import Plan
from kdcli.quantization.sensitivity import LADDER, disagreement, mixed, sensitivities
from kdcli.spec import zeros

FEW = ("--episodes", "20", "--latency-budget", "0.2s", "--states", "200")


def saved(agent: Agent, folder: Path) -> Path:
    return store.save(folder / f"{agent.name}.safetensors", agent, {})


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any, str]:
    """Exit code, the answer as JSON, and the conversation."""
    code = main([*map(str, words), "--json"])
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else None, told.err


def test_the_file_is_really_that_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what is said of bits and bytes is what is on the disk, before and after."""
    source, path = saved(reach_teacher(512), tmp_path), tmp_path / "q.safetensors"
    code, answer, _ = run(capsys, "quantize", source, "-o", path, "--scheme", "kmeans:4", *FEW, "--min-score", "0.5")
    floats, ours = answer["ways"]
    assert code in (0, 3)
    assert answer["kept"] == ours["name"] == "kmeans:4"
    assert (floats["bits"], floats["faster"]) == (32.0, 1.0)
    assert 2.0 < ours["bits"] < 2.3
    assert ours["onnx_bytes"] < floats["onnx_bytes"] / 1.5
    told = run(capsys, "inspect", path)[1]["storage"]
    assert told["bits"] == ours["bits"]
    assert told["codes"] == -(-1024 * 2 // 8) + -(-512 * 2 // 8)
    assert sum(size for name, size in told.items() if name != "bits") == path.stat().st_size
    assert run(capsys, "quantize", source, "-o", path, *FEW)[0] == 2  # it exists


def test_training_as_quantized_brings_it_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: an agent that rounding ruins plays again after training on its levels."""
    source = saved(choose_teacher(), tmp_path)
    harsh = ("--scheme", "int2:rows=no,fit=max", "--activations", 2, "--inputs", 3, *FEW)
    words = [("quantize", source, "-o", tmp_path / f"{n}.safetensors", *harsh, "--updates", n) for n in (0, 400)]
    scores = [run(capsys, *each)[1]["ways"][1]["score"] for each in words]
    assert scores[1] > scores[0]
    assert scores[1] > 0.8


def test_auto_keeps_what_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: --auto keeps the smallest file of those that hold; for speed, never a slower one: then the floats stay."""
    source, path = saved(choose_teacher(), tmp_path), tmp_path / "q.safetensors"
    words = ("quantize", source, "-o", path, "--auto", *FEW, "--min-score", "0.5")
    code, answer, _ = run(capsys, *words)
    holding = [way for way in answer["ways"] if way["verdict"] == "holds"]
    assert code == 0
    assert answer["kept"] == min(holding, key=lambda way: way["onnx_bytes"])["name"] != "floats"
    code, answer, said = run(capsys, *words, "--target", "latency", "--force")
    kept = next(way for way in answer["ways"] if way["name"] == answer["kept"])
    assert code == 0
    assert kept["name"] == "floats" or kept["faster"] > 1.05
    assert ("nothing helps" in said) == (kept["name"] == "floats")
    assert bool(held(store.load(path).policy)) == (kept["name"] != "floats")


def test_an_agent_without_env_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what is lost shows in the env; without one there is an error that says so."""
    agent = reach_teacher()
    source = store.save(tmp_path / "a.safetensors", Agent(agent.preprocess, agent.policy, "lost"), {})
    assert run(capsys, "quantize", source, "-o", tmp_path / "q.safetensors", *FEW)[0] == 2
    assert not (tmp_path / "q.safetensors").exists()


def drawn(agent: Agent) -> States:
    """The same states for everyone."""
    rng = np.random.default_rng(0)
    return States(rng.normal(size=(256, *zeros(agent.observation).shape[1:])).astype(np.float32))


def test_bits_go_where_they_matter() -> None:
    """Law: the mean of the bits is met; a matrix whose bits change nothing loses them first."""
    agent = choose_teacher()
    with torch.no_grad():  # only zeros and ones: no scheme moves them
        assert set(agent.policy.network.linears()[0].weight.flatten().tolist()) <= {0.0, 1.0, -1.0}  # type: ignore[union-attr]
        agent.policy.network.head.weight += 0.3 * torch.randn(agent.policy.network.head.weight.shape)
    plan = mixed(agent, Plan.parse("int8"), 4.0, drawn)
    sizes = {name: p.numel() for name, p in agent.policy.named_parameters() if name in plan.by_name}
    assert sum(plan.by_name[n].bits * size for n, size in sizes.items()) <= 4.0 * sum(sizes.values())
    assert plan.by_name["network.trunk.0.weight"].bits < plan.by_name["network.head.weight"].bits
    steps = {(s.name, s.scheme.name): s.disagreement for s in sensitivities(agent, LADDER, drawn)}
    assert steps["network.head.weight", "int8"] <= steps["network.head.weight", "int2"]


def test_no_disagreement_with_oneself() -> None:
    """Law: disagreement is 0 with an agent that acts alike, and more with one that does not."""
    agent = reach_teacher()
    zero = Packed(np.zeros((1, 64), np.int8), 2, scale=np.array(1.0, np.float32))
    assert disagreement(agent, agent, drawn) == 0.0
    assert disagreement(agent, agent.packed({"network.head.weight": zero}), drawn) > 0.1
