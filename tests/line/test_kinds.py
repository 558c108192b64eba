"""Observations, actions and memories of every kind, through the whole line as a user walks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import plain
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.cli.main import main
from kdcli.distillation.student import input_shapes_of
from kdcli.envs.make import make, to_space
from kdcli.errors import Exit
from kdcli.networks import build
from kdcli.spec import MASK, Dict, EnvSpec, parts

# env, wrappers, the teacher's network, the student's
KINDS: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "image": ("kdcli/See-v0", ("channels-first",), "cnn:4,hidden=8", "mobilenet:4x4,hidden=4"),
    "dict": ("kdcli/Both-v0", (), "mlp:8", "mlp:4,norm=layer"),
    "memory": ("kdcli/Remember-v0", (), "lstm:8", "attention:4,history=4"),
    "mask": ("kdcli/Allowed-v0", ("action-mask",), "gru:8", "lstm:4"),
    "levers": ("kdcli/Levers-v0", (), "mlp:8x8,norm=layer,residual=true", "gru:4,before=4"),
    "switches": ("kdcli/Switches-v0", (), "attention:8,history=4", "mlp:4x4,residual=true"),
    "rows": ("kdcli/Crowd-v0", (), "entities:8", "entities:4,hidden=3"),
}


def agent(spec: EnvSpec, text: str) -> Agent:
    """An untrained agent that plays there, of the network that `text` names."""
    env = make(spec)
    observation, action = to_space(env.observation_space), to_space(env.action_space)
    masked = isinstance(observation, Dict) and MASK in parts(observation)
    sees, rule = plain(observation), ActionRule(action, masked=masked)  # type: ignore[arg-type]
    network = build(Choice.parse(text), input_shapes_of(sees, rule), rule.n_outputs, seed=0)
    return Agent(sees, Policy(network, rule, "logits").eval().requires_grad_(False), "toy", spec)


@pytest.mark.parametrize("kind", KINDS)
def test_the_line_carries_it(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Load, export, rollout, bench and distill take it; file and agent play the very same episodes."""
    env, wrappers, teacher, small = KINDS[kind]
    source, file, data, student = (tmp_path / n for n in ("a.safetensors", "a.onnx", "data", "s.safetensors"))
    store.save(source, agent(EnvSpec(env, wrappers=wrappers), teacher), {})

    def run(*words: Any) -> str:
        assert main([*map(str, words), "--quiet"]) == Exit.DONE
        return capsys.readouterr().out

    for path in (file, tmp_path / "a.c", tmp_path / "b.npz", tmp_path / "c.pt"):
        run("export", source, "-o", path, "--states", 60)
    run("rollout", source, "-o", data, "--steps", 90)
    options = ("--episodes", 6, "--latency-budget", "0s", "--no-baselines", "--per-episode", "--json")
    told = json.loads(run("bench", source, file, *options))
    plays = [entry["episodes"]["returns"] for entry in told["contenders"]]
    assert plays[0] == plays[1]
    assert told["contenders"][1]["similarity"]["agreement"] == 1.0
    few = ("--updates", 20, "--rounds", 2, "--episodes", 2, "--student", small)
    run("distill", source, "-o", student, *few, "--labels", 200)
    run("distill", source, "-o", student, *few, "--data", "offline", "--dataset", data, "--force")
    run("export", student, "-o", file, "--states", 60, "--force")
    told = json.loads(run("bench", student, file, *options))
    plays = [entry["episodes"]["returns"] for entry in told["contenders"]]
    assert plays[0] == plays[1]
    for path in (source, file, student):
        assert run("inspect", path)
