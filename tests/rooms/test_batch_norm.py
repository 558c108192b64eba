"""Batch normalization while a student of images trains: an ordinary network before and after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcli.agents.action import ActionRule
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.distillation.batch_norm import BatchNorm, standardize
from kdcli.networks import build
from kdcli.spec import Discrete

SIGHT = (2, 12, 12)
STUDENTS = ["cnn:4x6,hidden=8", "mobilenet:4x4x6,hidden=8"]


def policy_of(student: str) -> Policy:
    return Policy(build(Choice.parse(student), [SIGHT], 3, 0), ActionRule(Discrete(3)), "logits")


def scenes(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A bright scene that never changes, and a spot in it: features (n, F), and which third of it the spot is in."""
    rng = np.random.default_rng(seed)
    still = np.random.default_rng(1).uniform(0.6, 1.0, SIGHT)
    images, places = np.repeat(still[None], n, 0), rng.integers(0, 12, (n, 2))
    images[np.arange(n), :, places[:, 0], places[:, 1]] -= 0.3
    return torch.from_numpy(images.reshape(n, -1).astype(np.float32)), torch.from_numpy(places[:, 0] // 4)


def convolutions(policy: Policy) -> list[nn.Conv2d]:
    return [module for module in policy.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("student", STUDENTS)
def test_drawn_convolutions_are_scaled_to_what_they_see(student: str) -> None:
    policy, (features, _) = policy_of(student), scenes(256)
    standardize(policy, features)
    for layer in convolutions(policy):
        seen: list[Tensor] = []
        handle = layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        policy.outputs(features)
        handle.remove()
        assert seen[0].mean((0, 2, 3)).abs().max() < 1e-3
        assert (seen[0].var((0, 2, 3)) - 1).abs().max() < 0.05


@pytest.mark.parametrize("student", STUDENTS)
def test_it_begins_as_the_function_the_student_is(student: str) -> None:
    policy, (features, _) = policy_of(student), scenes(256)
    before, norm = policy.outputs(features), BatchNorm(policy)
    with norm.training_on(lambda: features):
        torch.testing.assert_close(policy.outputs(features), before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(policy.outputs(features), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("student", STUDENTS)
def test_what_was_trained_is_what_acts_and_training_goes_on_from_there(student: str) -> None:
    policy, (features, labels) = policy_of(student), scenes(256)
    norm, adam = BatchNorm(policy), torch.optim.Adam(policy.parameters(), 0.01)
    with norm.training_on(lambda: features):
        for _ in range(20):
            adam.zero_grad()
            nn.functional.cross_entropy(policy.outputs(features), labels).backward()
            adam.step()
        trained = policy.outputs(features)
    torch.testing.assert_close(policy.outputs(features), trained, rtol=1e-3, atol=1e-4)
    assert not any(layer._forward_hooks for layer in convolutions(policy))
    alone = policy.outputs(features[:1])
    torch.testing.assert_close(alone, trained[:1], rtol=1e-3, atol=1e-4)
    with norm.training_on(lambda: features):
        torch.testing.assert_close(policy.outputs(features), trained, rtol=1e-3, atol=1e-4)


def error_after(n: int, normalized: bool) -> float:
    """Of new scenes, after `n` steps."""
    torch.manual_seed(0)
    policy, (features, labels) = policy_of("cnn:4x8,hidden=16"), scenes(2048)
    if normalized:
        standardize(policy, features)
    norm, adam = BatchNorm(policy), torch.optim.Adam(policy.parameters(), 0.003)

    def train() -> None:
        for rows in torch.randint(2048, (n, 64)):
            adam.zero_grad()
            nn.functional.cross_entropy(policy.outputs(features[rows]), labels[rows]).backward()
            adam.step()

    if normalized:
        with norm.training_on(lambda: features):
            train()
    else:
        train()
    new, right = scenes(500, seed=2)
    return float((policy.outputs(new).argmax(1) != right).float().mean())


def test_a_spot_in_a_still_scene_is_found_sooner() -> None:
    assert error_after(150, normalized=True) < 0.1 < error_after(150, normalized=False)
