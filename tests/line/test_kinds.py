"""Observations, actions and memories of every kind, through the whole line as a user walks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import plain
from kdcli.agents.policy import Policy
from kdcli.cli.main import main
from kdcli.envs.make import make, to_space
from kdcli.errors import Exit
from kdcli.networks.layers import LayerSpec
from kdcli.networks.stack import Branch, Stack
from kdcli.spec import MASK, Dict, EnvSpec, parts

SEE = (("conv2d", {"out": 4, "kernel": 8, "stride": 4}), ("relu", {}), ("flatten", {}))
# env, wrappers, the layer before the head
KINDS: dict[str, tuple[str, tuple[str, ...], LayerSpec]] = {
    "image": ("kdcli/See-v0", ("channels-first",), ("linear", {"out": 8})),
    "dict": ("kdcli/Both-v0", (), ("linear", {"out": 8})),
    "memory": ("kdcli/Remember-v0", (), ("lstm_cell", {"out": 8})),
    "mask": ("kdcli/Allowed-v0", ("action-mask",), ("gru_cell", {"out": 8})),
    "levers": ("kdcli/Levers-v0", (), ("linear", {"out": 8})),
    "switches": ("kdcli/Switches-v0", (), ("linear", {"out": 8})),
}


def agent(spec: EnvSpec, layer: LayerSpec) -> Agent:
    """An untrained agent that plays there: convolutions where it sees an image, channels first."""
    env = make(spec)
    observation, action = to_space(env.observation_space), to_space(env.action_space)
    masked = isinstance(observation, Dict) and MASK in parts(observation)
    sees, rule = plain(observation), ActionRule(action, masked=masked)  # type: ignore[arg-type]
    first = next(iter(parts(observation).values()))
    image = len(first.shape) == 3 and not isinstance(observation, Dict)
    width = sees.n_features - rule.n_mask
    branch = Branch(0, first.shape, SEE) if image else Branch(0, (width,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Stack([branch], [layer, ("tanh", {})], rule.n_outputs)
    return Agent(sees, Policy(network, rule, "logits").eval().requires_grad_(False), "toy", spec)


@pytest.mark.parametrize("kind", KINDS)
def test_the_line_carries_it(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Load, export, rollout, bench and distill take it; file and agent play the very same episodes."""
    env, wrappers, layer = KINDS[kind]
    source, file, data, student = (tmp_path / n for n in ("a.safetensors", "a.onnx", "data", "s.safetensors"))
    store.save(source, agent(EnvSpec(env, wrappers=wrappers), layer), {})

    def run(*words: Any) -> str:
        assert main([*map(str, words), "--quiet"]) == Exit.DONE
        return capsys.readouterr().out

    for path in (file, tmp_path / "a.c", tmp_path / "b.npz", tmp_path / "c.pt"):
        run("export", source, "-o", path, "--states", 60)
    run("rollout", source, "-o", data, "--steps", 90)
    options = ("--episodes", 6, "--latency-budget", "0s", "--no-baselines", "--per-episode", "--json")
    told = json.loads(run("bench", source, file, *options))
    plays = [contender["episodes"]["returns"] for contender in told["contenders"]]
    assert plays[0] == plays[1]
    assert told["contenders"][1]["similarity"]["agreement"] == 1.0
    few = ("--labels", 200, "--updates", 20, "--rounds", 2, "--episodes", 2, "--student", "mlp:4")
    run("distill", source, "-o", student, *few)
    run("distill", source, "-o", student, *few, "--data", "offline", "--dataset", data, "--force")
    run("export", student, "-o", file, "--states", 60, "--force")
    for path in (source, file, student):
        assert run("inspect", path)
