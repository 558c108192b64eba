"""Every row of every table of distillation, as a user names it: a run with it ends in another student."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents.action import ActionRule
from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.ensemble import COMBINATIONS, Ensemble
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.distillation import (
    AUGMENTATIONS,
    BALANCES,
    CONTROLS,
    DATA,
    LOSSES,
    REINFORCEMENTS,
    REPLAYS,
    SCHEDULES,
    TEMPERATURES,
    WEIGHINGS,
)
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.online import distill_in_env
from kdcli.envs.make import make, to_space
from kdcli.networks import NETWORKS
from kdcli.networks.cnn import cnn
from kdcli.networks.stack import Branch, Stack
from kdcli.spec import EnvSpec

pytestmark = pytest.mark.slow
QUICK = DistillConfig(student="mlp:8", labels=600, rounds=2, updates=60, batch=32, episodes=2, envs=4, lr="0.003")
SEE = EnvSpec("kdcli/See-v0", {"channels_first": True, "size": 52})
REMEMBER = EnvSpec("kdcli/Remember-v0")


def critical(teacher: Agent) -> Agent:
    """The same agent with a critic of states."""
    policy = copy.deepcopy(teacher.policy)
    torch.manual_seed(0)
    policy.value = torch.nn.Linear(policy.network.head.in_features, 1)
    return replace(teacher, policy=policy.eval().requires_grad_(False))


def valued() -> Agent:
    """The teacher of choices, whose outputs are Q-values."""
    policy = copy.deepcopy(choose_teacher().policy)
    policy.signal = "q"
    return replace(choose_teacher(), policy=policy)


def of(spec: EnvSpec, build: Any, image: bool = False) -> Agent:
    """A policy of an env with random weights."""
    env = make(spec)
    preprocess = Preprocess(to_space(env.observation_space), image=image)
    torch.manual_seed(0)
    rule = ActionRule(to_space(env.action_space))  # type: ignore[arg-type]
    policy = Policy(build(preprocess.shape), rule, "logits").eval().requires_grad_(False)
    return Agent(preprocess, policy, "any", spec)


def seeing() -> Agent:
    return of(SEE, lambda shape: cnn(Choice.parse("cnn:4x8x8,hidden=16"), [shape], 4), image=True)


def remembering() -> Agent:
    return of(REMEMBER, lambda shape: Stack([Branch(0, shape)], [("gru_cell", {"out": 6})], 2))


# A teacher that feeds each loss, and the student that can follow it; the others are fed by `choose_teacher`.
FED: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(["action", "huber", "mean", "mean_huber", "wasserstein"], (reach_teacher, "mlp:8")),
    **dict.fromkeys(["q", "q_huber", "regret"], (valued, "mlp:8")),
    **dict.fromkeys(["value", "value_l1"], (lambda: critical(choose_teacher()), "mlp:8")),
    "attention": (seeing, "cnn:2x4x4,hidden=8"),
    "state_hint": (remembering, "gru:4"),
    "gated": (lambda: None, "mlp:8"),
}
# What each of these terms stands beside, so that a student of it can play.
ALONE = {"kl", "reverse_kl", "js", "cross_entropy", "softmax_q", "nll", "q", "q_huber"}
# As KL, these have the gradient of the first of two that they could be compared with.
SAME = {"kl", "cross_entropy", "softmax_q", "action"}
ALONE |= {"action", "huber", "mean", "mean_huber", "wasserstein"}
VALUES = {
    "augment": {"gaussian": "gaussian:0.1", "mix": "mix:0.3", "shift": "shift:3"},
    "tau": {"entropy": "entropy:0.7", "adversarial": "curriculum:1->8"},
}


@cache
def learned(teacher: Any, **options: Any) -> torch.Tensor:
    """The weights of a student, all in one."""
    made: Actor = teacher()
    student = distill_in_env(made, QUICK.model_copy(update=options)).student
    return torch.cat([p.flatten() for p in student.policy.network.parameters()])


def differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape != other.shape or not torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(LOSSES.names()) - {"gated"}))
def test_losses(name: str) -> None:
    """Law: every loss moves the student elsewhere than another that fits does, alone or beside it."""
    teacher, student = FED.get(name, (choose_teacher, "mlp:8"))
    other = [term for term in ("action", "mean") if teacher is reach_teacher] or ["kl", "nll"]
    beside = () if name in ALONE else (other[0],)
    window = {"window": 8} if name == "state_hint" else {}
    with_it = learned(teacher, loss=(*beside, name), student=student, **window)
    without = learned(teacher, loss=beside or (other[name in SAME],), student=student, **window)
    assert torch.isfinite(with_it).all()
    assert differ(with_it, without)


@pytest.mark.parametrize("name", TEMPERATURES.names())
def test_temperatures(name: str) -> None:
    """Law: every temperature teaches otherwise than 1."""
    text = VALUES["tau"].get(name, f"{name}:2->8")
    assert differ(learned(choose_teacher, loss=("kl",), tau=text), learned(choose_teacher, loss=("kl",)))


@pytest.mark.parametrize("name", [name for name in SCHEDULES.names() if name != "constant"])
def test_schedules(name: str) -> None:
    """Law: every schedule teaches otherwise than its first number."""
    assert differ(learned(choose_teacher, tau=f"{name}:4->0.5"), learned(choose_teacher, tau="constant:4"))


@pytest.mark.parametrize("name", [name for name in WEIGHINGS.names() if name != "uniform"])
def test_weighings(name: str) -> None:
    """Law: every weighing teaches otherwise than none."""
    assert differ(learned(valued, weigh=name), learned(valued))


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *(("augment", name) for name in AUGMENTATIONS.names()),
        *(("replay", name) for name in REPLAYS.names() if name != "uniform"),
        *(("reinforce", name) for name in REINFORCEMENTS.names()),
        *(("data", name) for name in DATA.names() if name not in ("dagger", "offline")),
    ],
)
def test_what_is_learned_from(option: str, name: str) -> None:
    """Law: every way to come by states, and every reward, teaches otherwise than the default."""
    teacher, student = (seeing, "cnn:2x4x4,hidden=8") if name == "shift" else (reach_teacher, "mlp:8")
    value = (name,) if option == "reinforce" else VALUES.get(option, {}).get(name, name)
    beta = "0.5"  # the second round of two would be the student's alone
    plain = learned(teacher, student=student, beta=beta)
    assert differ(learned(teacher, student=student, beta=beta, **{option: value}), plain)


def test_a_student_that_begins_with_its_teachers_layers() -> None:
    """Law: the teacher's own layers are another beginning."""
    student = "mlp:8,activation=relu"
    assert differ(learned(choose_teacher, student=student, init="teacher"), learned(choose_teacher, student=student))


@pytest.mark.parametrize("name", [name for name in BALANCES.names() if name != "fixed"])
def test_balances(name: str) -> None:
    """Law: every balance teaches otherwise than fixed weights."""
    terms = ("kl", "hint@10")
    assert differ(learned(choose_teacher, loss=terms, balance=name), learned(choose_teacher, loss=terms))


@pytest.mark.parametrize("name", CONTROLS.names())
def test_controls(name: str) -> None:
    """Law: a weight that follows a measurement teaches otherwise than one that stays at its first number."""
    followed = learned(choose_teacher, loss=("kl", f"hint@{name}:10->0"))
    assert differ(followed, learned(choose_teacher, loss=("kl", "hint@10")))


@pytest.mark.parametrize("name", COMBINATIONS.names())
def test_teachers(name: str) -> None:
    """Law: every combination of two teachers says something else than its first."""
    second = critical(choose_teacher())
    second.policy.network.head.weight.mul_(-0.5)
    text = "weighted:0.7+0.3" if name == "weighted" else name
    both = Ensemble([critical(choose_teacher()), second], text)
    obs = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    assert not np.allclose(both.heads(obs).scores().numpy(), both.members[0].heads(obs).scores().numpy())


STUDENTS = {
    "linear": "linear",
    "mlp": "mlp:8",
    "gru": "gru:6",
    "lstm": "lstm:6",
    "attention": "attention:8,heads=2,history=4",
}


@pytest.mark.parametrize("name", STUDENTS)
def test_students(name: str) -> None:
    """Law: every form of student that sees numbers learns by the same command."""
    assert name in NETWORKS.names()
    assert torch.isfinite(learned(choose_teacher, student=STUDENTS[name], window=8)).all()
