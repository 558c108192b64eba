"""rsl_rl: layouts of its generations, rebuilt; the study `foreign_checkpoints` compares with files of rsl_rl itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import BOUNDED, VECTOR, Where, assert_same, loaded, missing, mlp, observations, out, saved, stirred
from foreign import where as where
from torch import nn

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError
from kdcli.spec import Box, Discrete

Memory = tuple[type[nn.RNNBase], int] | None


class Statistics(nn.Module):
    """EmpiricalNormalization: what is saved of it."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("_mean", "_var", "_std"):
            self.register_buffer(name, torch.randn(1, 7).abs() + 0.2)
        self.register_buffer("count", torch.tensor(9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self._mean) / (self._std + 1e-2)


class Recurrent(nn.Module):
    """Memory: a GRU or LSTM called rnn."""

    def __init__(self, kind: type[nn.RNNBase], layers: int) -> None:
        super().__init__()
        self.rnn = kind(7, 9, layers)


class Policy(nn.Module):
    """An actor of one generation: statistics, memory, perceptron under the names it has there."""

    def __init__(self, generation: int, memory: Memory, role: str = "actor", outputs: int = 3) -> None:
        super().__init__()
        actor = mlp(9 if memory else 7, 16, 8, outputs)
        new = generation >= 4
        self.statistics: nn.Module = Statistics()
        self.actor, self.memory = actor, Recurrent(*memory) if memory else None
        setattr(self, "mlp" if new else role, actor)
        if memory:
            setattr(self, "rnn" if new else f"memory_{role[0]}", self.memory)
        if generation == 3:
            setattr(self, f"{role}_obs_normalizer", self.statistics)
        elif new:
            self.obs_normalizer = self.statistics
        if generation == 5:
            self.distribution = nn.Module()
            self.distribution.log_std_param = nn.Parameter(torch.zeros(3))
        else:
            self.std = nn.Parameter(torch.ones(3))

    def kept(self) -> dict[str, Any]:
        """The state dict, without this class's own second names."""
        own = ("statistics.", "memory.") + (("actor.",) if hasattr(self, "mlp") or hasattr(self, "student") else ())
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(own)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.actor(self.statistics(x))


def file_of(policy: Policy, generation: int, folder: Path) -> Path:
    """A model_100.pt of the generation."""
    state: dict[str, Any] = policy.kept()
    rest = {"optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-3}]}, "iter": 100, "infos": None}
    if generation >= 4:
        critic = {f"mlp.{name}": t for name, t in mlp(7, 4, 1).state_dict().items()}
        return saved({"actor_state_dict": state, "critic_state_dict": critic, **rest}, folder, "model_100.pt")
    state |= {f"critic.{name}": t for name, t in mlp(7, 4, 1).state_dict().items()}
    beside = {"obs_norm_state_dict": policy.statistics.state_dict()} if generation < 3 else {}
    return saved({"model_state_dict": state, **rest, **beside}, folder, "model_100.pt")


@pytest.mark.parametrize("generation", [1, 3, 4, 5])
def test_every_generation(generation: int, tmp_path: Path, where: Where) -> None:
    """Law: statistics inside or beside, actor under any of its names: rsl_rl's actions, clipped to the env's."""
    where(VECTOR, BOUNDED)
    policy: Any = stirred(Policy(generation, None))
    path = file_of(policy, generation, tmp_path)
    agent, _ = loaded(path, activation="elu")
    obs = observations(VECTOR)
    assert_same(agent, obs, np.clip(out(policy, obs), BOUNDED.low, BOUNDED.high))
    std = policy.distribution.log_std_param if generation == 5 else policy.std.log()
    np.testing.assert_allclose(agent.heads(obs[:1]).log_std[0].numpy(), std.detach().numpy(), atol=1e-6)
    assert agent.facts["iteration"] == 100


@pytest.mark.parametrize("generation", [1, 3, 5])
@pytest.mark.parametrize("memory", [(nn.GRU, 1), (nn.LSTM, 1), (nn.LSTM, 2), (nn.GRU, 3)], ids=str)
def test_memory(generation: int, memory: Memory, tmp_path: Path, where: Where) -> None:
    """Law: every layer of a GRU or LSTM is carried through an episode as torch carries it."""
    where(VECTOR, BOUNDED)
    policy: Any = stirred(Policy(generation, memory))
    agent, _ = loaded(file_of(policy, generation, tmp_path), activation="elu")
    state, theirs = np.zeros((4, agent.state_size), np.float32), None
    for obs in observations(VECTOR, 40).reshape(10, 4, 7):
        with torch.inference_mode():
            hidden, theirs = policy.memory.rnn(policy.statistics(torch.from_numpy(obs))[None], theirs)
            wanted = policy.actor(hidden[0]).numpy()
        actions, state = agent.step(obs, state)
        np.testing.assert_allclose(actions, np.clip(wanted, BOUNDED.low, BOUNDED.high), atol=1e-5)


def test_the_student_of_a_distillation(tmp_path: Path, where: Where) -> None:
    """Law: of student and teacher in one file, the student acts."""
    where(VECTOR, BOUNDED)
    policy: Any = stirred(Policy(3, None, role="student"))
    teacher = {f"teacher.{name}": t for name, t in mlp(7, 4, 3).state_dict().items()}
    path = saved({"model_state_dict": {**policy.kept(), **teacher}, "iter": 3, "infos": {}}, tmp_path)
    obs = observations(VECTOR)
    agent, _ = loaded(path, activation="elu")
    assert_same(agent, obs, np.clip(out(policy, obs), BOUNDED.low, BOUNDED.high))
    new = saved(
        {"student_state_dict": stirred(Policy(5, None)).kept(), "teacher_state_dict": {"a": torch.ones(1)}}, tmp_path
    )  # type: ignore[operator]
    assert loaded(new, activation="elu")[0].facts["algorithm"] == "Distillation"


def test_the_activation_is_asked_for(tmp_path: Path, where: Where) -> None:
    """Law: the activation is not in the file and is never guessed; one a layer may be given."""
    where(VECTOR, BOUNDED)
    path = file_of(Policy(1, None), 1, tmp_path)
    missing(path, "--activation")
    missing(path, "--activation", activation="elu,tanh,relu")
    assert "elu-8-tanh" in str(loaded(path, activation="elu,tanh")[0].policy.network)
    assert not torch.equal(
        *(torch.from_numpy(loaded(path, activation=name)[0].act(observations(VECTOR))) for name in ("elu", "tanh"))
    )


def test_without_an_env(tmp_path: Path) -> None:
    """Law: without an env it acts as rsl_rl's own policy does: real numbers without bounds, which is said."""
    policy: Any = stirred(Policy(4, None))
    heard: list[str] = []
    agent = read(file_of(policy, 4, tmp_path), LoadConfig(activation="elu"), lambda e: heard.append(e.text))
    assert isinstance(agent.action, Box)
    assert np.isinf(agent.action.high).all()
    assert any("without bounds" in text for text in heard)
    obs = observations(VECTOR)
    np.testing.assert_allclose(agent.act(obs), out(policy, obs), atol=1e-5)


def test_two_numbers_an_action(tmp_path: Path, where: Where) -> None:
    """Law: mean and spread, or a Beta's parameters, are not told apart by guess; told that it is means, half acts."""
    where(VECTOR, BOUNDED)
    policy: Any = Policy(3, None, outputs=6)
    del policy.std
    path = file_of(stirred(policy), 3, tmp_path)
    missing(path, "--signal", activation="elu")
    obs = observations(VECTOR)
    agent, _ = loaded(path, activation="elu", signal="mean")
    assert_same(agent, obs, np.clip(out(policy, obs)[:, :3], BOUNDED.low, BOUNDED.high))


def test_what_does_not_fit(tmp_path: Path, where: Where) -> None:
    """Law: an env of choices, an unknown tensor and a convolution are refused."""
    where(VECTOR, Discrete(3))
    path = file_of(Policy(1, None), 1, tmp_path)
    missing(path, "--env", activation="elu")
    where(VECTOR, BOUNDED)
    for name, shape in {"actor.6.weight": (3, 8, 1, 1), "cnns.camera.0.weight": (2, 1, 3, 3)}.items():
        state = {**Policy(1, None).kept(), name: torch.zeros(shape)}
        with pytest.raises(RefusedError):
            loaded(saved({"model_state_dict": state, "iter": 1}, tmp_path), activation="elu")
