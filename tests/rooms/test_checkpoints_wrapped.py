"""What surrounds the weights in files of real users: wrappers, own classes, policies alone, nested dictionaries."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_agents import THINGS, assert_alike, made
from sb3_oracle import BOX, rows
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read, sniff
from kdcli.checkpoints.safe.containers import unwrapped
from kdcli.errors import KdcliError, RefusedError, UsageError
from kdcli.networks.activations import CLASSES

Rename = Callable[[str], str]
WRAPPERS: dict[str, Rename] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "a part compiled": lambda name: name.replace(".", "._orig_mod.", 1),
    "parallel": lambda name: f"module.{name}",
    "parallel and compiled": lambda name: f"module._orig_mod.{name}",
    "a part parallel": lambda name: name.replace(".", ".module.", 1),
}


def rekeyed(path: Path, rename: Rename, **more: torch.Tensor) -> Path:
    """The zip with its tensors under other names."""
    target = path.with_name("rekeyed.zip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as made_:
        for name in source.namelist():
            content = source.read(name)
            if name == "policy.pth":
                with source.open(name) as member:
                    state = torch.load(member, weights_only=True)
                torch.save({**{rename(key): t for key, t in state.items()}, **more}, path.with_name("policy.pth"))
                content = path.with_name("policy.pth").read_bytes()
            made_.writestr(name, content)
    return target


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["PPO", "SAC", "DQN"])
def test_wrapped_modules_are_read_as_they_are_without(name: str, wrapper: str, tmp_path: Path) -> None:
    """torch.compile and DataParallel change the names of tensors and nothing else."""
    teacher = made(tmp_path, name, BOX)
    agent, obs = read(rekeyed(teacher.path, WRAPPERS[wrapper])), teacher.observations(40)
    np.testing.assert_array_equal(agent.act(obs), read(teacher.path).act(obs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_compile_names_tensors_so() -> None:
    """The names are those that torch.compile gives, of the whole or of a part; its compiler takes seconds to load."""
    plain = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    part = nn.DataParallel(nn.Sequential(torch.compile(plain[0]), plain[1], plain[2]))
    for one in (torch.compile(plain), part):
        assert list(unwrapped(one.state_dict())) == list(plain.state_dict())  # type: ignore[attr-defined]


def test_other_wrappers_name_tensors_so() -> None:
    """The names are those that torch's own wrappers give; a module that is called `module` keeps its name."""
    plain = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    for one in (nn.DataParallel(plain), torch.optim.swa_utils.AveragedModel(plain)):
        assert list(unwrapped(one.state_dict())) == list(plain.state_dict())
    own = {"module.weight": torch.zeros(1), "head.weight": torch.zeros(1)}
    assert unwrapped(own).keys() == own.keys()
    twice = {"a.weight": torch.zeros(1), "_orig_mod.a.weight": torch.zeros(1)}
    assert unwrapped(twice).keys() == twice.keys()


SAVED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "PPO": ("PPO", BOX, {}),
    "PPO of parts": ("PPO", THINGS, {"action": "multidiscrete"}),
    "A2C with gSDE": ("A2C", BOX, {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
    "PPO's relu": ("PPO", BOX, {"policy_kwargs": {"activation_fn": nn.ReLU, "net_arch": [7, 5]}}),
    "MaskablePPO": ("MaskablePPO", BOX, {}),
    "DQN": ("DQN", BOX, {}),
    "QRDQN": ("QRDQN", BOX, {"policy_kwargs": {"n_quantiles": 7}}),
    "SAC": ("SAC", BOX, {}),
    "SAC with gSDE": ("SAC", BOX, {"use_sde": True}),
    "TQC": ("TQC", BOX, {}),
    "TD3": ("TD3", BOX, {}),
    "CrossQ": ("CrossQ", BOX, {}),
    "ARS": ("ARS", BOX, {}),
    "ARS's linear": ("ARS", BOX, {"policy": "LinearPolicy"}),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_policy_that_saved_itself(case: str, tmp_path: Path) -> None:
    """`model.policy.save(path)` is read as the model is: spaces, arguments and tensors are all there."""
    name, observation, settings = SAVED[case]
    teacher = made(tmp_path, name, observation, **settings)
    teacher.model.policy.save(str(tmp_path / "policy.pth"))
    assert sniff(tmp_path / "policy.pth") == "sb3_policy"
    alone, whole = read(tmp_path / "policy.pth"), read(teacher.path)
    columns = teacher.columns(60)
    np.testing.assert_array_equal(alone.act(rows(alone, columns)), whole.act(rows(whole, columns)))
    assert (alone.rule.squash, alone.rule.masked) == (whole.rule.squash, whole.rule.masked)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_activation_in_a_policy(kind: str, tmp_path: Path) -> None:
    """Whatever activation without weights torch has, a policy with it and the file made of it act as SB3's."""
    teacher = made(tmp_path, "PPO", BOX, policy_kwargs={"activation_fn": getattr(nn, kind), "net_arch": [9, 8]})
    teacher.model.policy.set_training_mode(False)
    assert_alike(teacher, read(teacher.path))


def test_the_activations_are_torchs() -> None:
    """Each module of torch that maps one number to one, has no weights and needs no arguments, is read."""
    found, over_all = set(), {"Softmax", "Softmin", "LogSoftmax", "Softmax2d"}
    for name, kind in vars(torch.nn.modules.activation).items():
        if isinstance(kind, type) and issubclass(kind, nn.Module) and name not in {"Module", *over_all}:
            try:
                made_ = kind()
                y = made_.eval()(torch.tensor([[0.3, -0.7], [-2.0, 5.0]]))
            except (TypeError, RuntimeError, ValueError):
                continue
            if y.shape == (2, 2) and not list(made_.parameters()):
                found.add(name)
    assert found == CLASSES.keys() - {"Identity"}


class OwnAdam(torch.optim.Adam):
    """An optimizer of one's own."""


class OnlyWidths(ActorCriticPolicy):
    """As imitation's FeedForward32Policy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "net_arch": [32, 32]})


class OwnExtractor(BaseFeaturesExtractor):
    """An MLP before the MLP."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 4)
        self.network = nn.Linear(space.shape[0], 4)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.network(obs)


def in_a_notebook(kind: type) -> type:
    """A class that cloudpickle writes out, code and all."""

    class Here(kind):  # type: ignore[misc,valid-type]
        def more(self) -> float:
            return 0.5

    return Here


@pytest.mark.parametrize("where", ["a module", "a notebook"])
def test_what_acting_does_not_need_may_be_anything(where: str, tmp_path: Path) -> None:
    """An optimizer of one's own stays a name: it is neither refused nor imported."""
    kind = OwnAdam if where == "a module" else in_a_notebook(torch.optim.Adam)
    teacher = made(tmp_path, "PPO", BOX, policy_kwargs={"optimizer_class": kind, "net_arch": [8]})
    module = sys.modules.pop(__name__)
    try:
        agent = read(teacher.path)
        assert __name__ not in sys.modules
    finally:
        sys.modules[__name__] = module
    assert_alike(teacher, agent)


@pytest.mark.parametrize("where", ["a module", "a notebook"])
def test_a_policy_class_of_ones_own_needs_its_activation(where: str, tmp_path: Path) -> None:
    """Its tensors tell its layers, not what is between them: once that is said, it is read and its class recorded."""
    kind = OnlyWidths if where == "a module" else in_a_notebook(OnlyWidths)
    teacher = made(tmp_path, "PPO", BOX, policy=kind)
    with pytest.raises(UsageError, match=kind.__name__) as error:
        read(teacher.path)
    assert "--activation tanh" in error.value.fix
    heard: list[Any] = []
    agent = read(teacher.path, LoadConfig(activation="tanh"), heard.append)
    assert agent.facts["policy_class"].endswith(f".{kind.__name__}")
    assert any("unseen" in note.text for note in heard)
    assert_alike(teacher, agent)
    own = made(tmp_path, "PPO", BOX)
    with pytest.raises(UsageError, match="--activation says nothing"):
        read(own.path, LoadConfig(activation="relu"))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("features_extractor_class", OwnExtractor, "OwnExtractor"),
        ("features_extractor_class", in_a_notebook(OwnExtractor), "Here"),
        ("activation_fn", nn.PReLU, "PReLU"),
        ("activation_fn", lambda: nn.LeakyReLU(0.2), "_make_function"),
    ],
)
def test_what_acting_needs_is_refused_by_its_name(key: str, value: Any, named: str, tmp_path: Path) -> None:
    """The key whose class decides what is computed is named, and what it asks for."""
    teacher = made(tmp_path, "PPO", BOX, policy_kwargs={key: value, "net_arch": [8]})
    with pytest.raises(RefusedError, match=rf"{key} asks for .*{named}") as error:
        read(teacher.path)
    assert "ONNX" in error.value.fix


def test_a_card_reaches_into_dictionaries(tmp_path: Path) -> None:
    """Weights are named by the path to them; what else lies in the file is left alone."""
    actor = nn.Sequential(nn.Linear(3, 5), nn.Mish(), nn.Linear(5, 2))
    critic = nn.Linear(3, 1)
    saved = {
        "model": {"actor": actor.state_dict(), "critic": critic.state_dict(), "step": 7},
        "optimizer": torch.optim.Adam(actor.parameters()).state_dict(),
    }
    torch.save(saved, tmp_path / "agent.pt")
    unit = {"kind": "box", "shape": [3], "dtype": "float32", "low": "-inf", "high": "inf"}
    card = {
        "trunk": [["linear", 5], ["mish"]],
        "heads": {"model.actor.2": "logits"},
        "observation": unit,
        "action": {"kind": "discrete", "n": 2, "start": 0, "dtype": "int64"},
    }
    (tmp_path / "agent.json").write_text(json.dumps(card))
    agent, obs = read(tmp_path / "agent.pt"), np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = actor(torch.from_numpy(obs))
    torch.testing.assert_close(agent.heads(obs).logits, wanted)
    wrapped = {"model": {"actor": {f"_orig_mod.{name}": t for name, t in actor.state_dict().items()}}}
    torch.save(wrapped, tmp_path / "agent.pt")
    torch.testing.assert_close(read(tmp_path / "agent.pt").heads(obs).logits, wanted)
    (tmp_path / "agent.json").write_text(json.dumps({**card, "heads": {"model.policy.2": "logits"}}))
    with pytest.raises(KdcliError, match=r"model\.policy\.2"):
        read(tmp_path / "agent.pt")
