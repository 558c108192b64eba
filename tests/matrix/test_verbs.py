"""Every verb takes an agent of every action rule, whatever the bounds of its actions are.

Bounds other than -1 and 1 are what the units of losses, targets and files must be converted by. A tensor for that
which is first made under `torch.inference_mode` and kept ends every training that meets it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import plain
from kdcli.agents.policy import Policy, Spread
from kdcli.cli.main import main
from kdcli.envs.make import make, to_space
from kdcli.errors import Exit
from kdcli.networks.mlp import MLP
from kdcli.pruning.unit_stats import UnitStats
from kdcli.spec import EnvSpec

torch.set_num_threads(1)

BOUNDS: Mapping[str, tuple[list[float], list[float]]] = {
    "unit": ([-1.0, -1.0], [1.0, 1.0]),
    "wide": ([-2.0, -2.0], [2.0, 2.0]),
    "asymmetric": ([-0.5, -0.5], [2.0, 2.0]),
    "per-dimension": ([-3.0, 0.0], [0.25, 5.0]),
}
# Rules as trainers have them: PPO, A2C and TRPO; SAC and TD3; SAC with gSDE.
RULES: Mapping[str, Mapping[str, Any]] = {
    "clip": {},
    "tanh": {"squash": "tanh"},
    "tanh, limited": {"squash": "tanh", "limit": 2.0},
}
SPREADS = {"clip": ("constant", (2,)), "tanh": ("linear", (2, 12)), "tanh, limited": ("gsde", (12, 2))}
CELLS = [(rule, bounds) for rule in RULES for bounds in BOUNDS]
QUICK = ("clip", "per-dimension")


class Aim(gymnasium.Env):
    """Hit what is shown: a target in each dimension, somewhere between the bounds; 10 steps."""

    def __init__(self, low: list[float], high: list[float]) -> None:
        self.action_space = Box(np.float32(low), np.float32(high))
        self.observation_space = Box(-1.0, 1.0, (2,), np.float32)
        self._shown = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._show(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        low, high = self.action_space.low, self.action_space.high
        assert (action >= low - 1e-6).all()
        assert (action <= high + 1e-6).all()
        missed = (action - low) / (high - low) * 2 - 1 - self._shown
        return self._show(), -float(np.abs(missed).mean()), False, False, {}

    def _show(self) -> np.ndarray:
        self._shown = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self._shown


gymnasium.register("kdcli_tests/Aim-v0", Aim, max_episode_steps=10)


def aiming(rule: str, bounds: str) -> Agent:
    """An agent that hits what it is shown, nearly; its network has more units than it needs."""
    low, high = BOUNDS[bounds]
    spec = EnvSpec("kdcli_tests/Aim-v0", {"low": low, "high": high})
    env = make(spec)
    decides = ActionRule(to_space(env.action_space), **RULES[rule])  # type: ignore[arg-type]
    middle, half = (np.float32(high) + np.float32(low)) / 2, (np.float32(high) - np.float32(low)) / 2
    scale, offset = (half, middle) if rule == "clip" else (np.full(2, 1.3), np.zeros(2))
    network = MLP(2, (12,), 2, "relu")
    with torch.no_grad():
        hidden = network.linears()[0]
        hidden.weight.mul_(0.01)
        hidden.bias.zero_()
        hidden.weight[:4] += torch.cat([torch.eye(2), -torch.eye(2)])
        network.head.weight.mul_(0.01)
        network.head.bias.copy_(torch.from_numpy(np.float32(offset)))
        gain = torch.diag(torch.from_numpy(np.float32(scale)))
        network.head.weight[:, :4] += torch.cat([gain, -gain], 1)
    kind, shape = SPREADS[rule]
    bias = torch.full((2,), -1.0) if kind == "linear" else None
    spread = Spread(kind, torch.full(shape, -1.0), bias)  # type: ignore[arg-type]
    policy = Policy(network, decides, "mean", spread).eval().requires_grad_(False)
    return Agent(plain(to_space(env.observation_space)), policy, "aim", spec)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was kept and cannot take part in a gradient: cached values, buffers and parameters."""
    found: list[str] = []
    get = functools.cached_property.__get__

    def watched(self: Any, instance: Any, owner: Any = None) -> Any:
        value = get(self, instance, owner)
        if instance is not None and any(tensor.is_inference() for tensor in _tensors(value)):
            found.append(f"{type(instance).__name__}.{self.attrname}")
        return value

    def registered(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is not None and tensor.is_inference():
            found.append(f"{type(module).__name__}.{name}")

    monkeypatch.setattr(functools.cached_property, "__get__", watched)
    hooks = [
        register_module_buffer_registration_hook(registered),
        register_module_parameter_registration_hook(registered),
    ]
    yield found
    for hook in hooks:
        hook.remove()
    assert found == []


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _tensors([getattr(value, field.name) for field in dataclasses.fields(value)])


@pytest.mark.parametrize(("rule", "bounds"), CELLS)
def test_a_rule_first_used_while_acting_still_learns(rule: str, bounds: str) -> None:
    """Law: a gradient flows through every conversion of a rule whose first use was under `inference_mode`."""
    decides = aiming(rule, bounds).rule
    numbers = torch.randn(3, 2)
    with torch.inference_mode():
        acted = [decides.unit(numbers), decides.decode(numbers), decides.taught(numbers).action]
    free = numbers.clone().requires_grad_()
    learned = [decides.unit(free), decides.decode(free), decides.taught(free).action]
    for a, b in zip(acted, learned, strict=True):
        assert torch.equal(a, b.detach())  # type: ignore[union-attr]
        b.square().sum().backward(retain_graph=True)  # type: ignore[union-attr]
    assert free.grad is not None
    assert free.grad.isfinite().all()


def test_evidence_first_asked_for_while_acting_is_ordinary(kept: list[str]) -> None:
    """Law: what pruning keeps of an agent takes part in gradients, whoever asks for it first."""
    from kdcli.agents.states import States

    agent = aiming(*QUICK)
    unit_stats = UnitStats(agent, States(np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)))
    with torch.inference_mode():
        found = [
            unit_stats.tensors,
            unit_stats.seen,
            unit_stats.means,
            unit_stats.scores,
            unit_stats.stack,
            unit_stats.agent,
        ]
    assert not any(tensor.is_inference() for tensor in _tensors(found))


def _run(capsys: pytest.CaptureFixture[str], *words: Any, ends: tuple[Exit, ...] = (Exit.DONE,)) -> str:
    """The answer of a command that ends in one of these ways."""
    code = main([*map(str, words), "--quiet"])
    told = capsys.readouterr()
    assert code in ends, told.err
    return told.out


_MEASURED = (Exit.DONE, Exit.GATE_FAILED, Exit.UNDECIDED)  # by the verdict, which is not what is tested here
_FEW = ("--labels", 400, "--episodes", 4)
_PRUNE = ("--rounds", 1, "--recover", 20, "--states", 200, "--importance-states", 64, "--min-score", -10)
_QUANTIZE = ("--activations", 8, "--states", 200, "--updates", 20, "--latency-budget", "0s")
_BENCH = ("--latency-budget", "0s", "--no-baselines", "--states", 200, "--json")
_SUFFIXES = (".onnx", ".c", ".npz", ".pt", ".pt2")


def _check_verbs(
    rule: str, bounds: str, folder: Path, capsys: pytest.CaptureFixture[str], suffixes: tuple[str, ...] = _SUFFIXES
) -> None:
    """Distill, prune, quantize, export and bench: each file acts within the bounds, and as its agent does."""
    teacher = store.save(folder / "t.safetensors", aiming(rule, bounds), {})
    student, thin, coarse = (folder / f"{name}.safetensors" for name in "spq")
    _run(capsys, "distill", teacher, "-o", student, *_FEW, "--updates", 20, "--rounds", 2, "--student", "mlp:8")
    _run(capsys, "prune", teacher, "-o", thin, *_FEW, *_PRUNE, "--to", "params<=40", "--importance", "taylor")
    _run(capsys, "quantize", teacher, "-o", coarse, "--episodes", 4, *_QUANTIZE, ends=_MEASURED)
    for agent in (teacher, student, thin, coarse):
        for suffix in suffixes:
            _run(capsys, "export", agent, "-o", agent.with_suffix(suffix), "--states", 60)
    files = [student, thin, coarse, *(agent.with_suffix(".onnx") for agent in (teacher, student, thin, coarse))]
    told = json.loads(_run(capsys, "bench", teacher, *files, "--episodes", 4, *_BENCH))
    returns = [entry["return"]["mean"] for entry in told["contenders"]]
    assert np.isfinite(returns).all()
    assert returns[0] == pytest.approx(returns[4], abs=1e-4)
    for agent, exported in zip((student, thin, coarse), returns[5:], strict=True):
        assert returns[files.index(agent) + 1] == pytest.approx(exported, abs=0.02), agent.name


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: list[str]) -> None:
    """Law: an agent whose actions are clipped to bounds of their own goes through every verb."""
    _check_verbs(*QUICK, tmp_path, capsys, (".onnx",))


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "bounds"), [cell for cell in CELLS if cell != QUICK])
def test_the_verbs_with_other_rules_and_bounds(
    rule: str, bounds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: list[str]
) -> None:
    """Law: the same for every rule and all bounds."""
    _check_verbs(rule, bounds, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "bounds"), CELLS)
def test_compress(rule: str, bounds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: list[str]) -> None:
    """Law: for every rule and all bounds, compress finds a student that is nearly as good and says so."""
    teacher = store.save(tmp_path / "t.safetensors", aiming(rule, bounds), {})
    words = ("compress", teacher, "-o", tmp_path / "run", "--budget", "10s", "--no-baselines", "--json")
    told = json.loads(_run(capsys, *words, ends=(Exit.DONE, Exit.UNDECIDED)))
    assert told["score"]["score"] > 0.9
