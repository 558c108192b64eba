"""A normalizer folded into the layers that read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_policies import agent, student

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.folding import can_fold, fold
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.graph.trace import trace
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Branch, Stack
from kdcli.spec import Discrete, box

RNG = np.random.default_rng(0)
MEAN, SCALE = RNG.normal(size=5), RNG.uniform(0.1, 3.0, 5)


def normalized(clip: float = np.inf, mean: np.ndarray = MEAN, bias: bool = True, **policy: object) -> Agent:
    return agent(
        ActionRule(box((3,), -1, 1)), Preprocess(box((5,)), Normalizer(mean, SCALE, clip)), {"bias": bias}, **policy
    )


def states() -> np.ndarray:
    return (MEAN + SCALE * RNG.normal(size=(300, 5))).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
def test_folding_changes_no_action(bias: bool) -> None:
    """Law: the folded agent reads raw observations and says what the other says, its critic too."""
    torch.manual_seed(0)
    whole = normalized(bias=bias, value=MLP(5, (4,), 1))
    small, obs = fold(whole), states()
    assert small.preprocess.normalizer is None
    for name, tensor in whole.heads(obs).present().items():
        torch.testing.assert_close(small.heads(obs).present()[name], tensor, rtol=1e-4, atol=1e-5)
    assert whole.preprocess.normalizer is not None


@pytest.mark.parametrize("text", ["gru:6,hidden=5", "attention:6,heads=2", "mlp:6x6,norm=layer,residual=true"])
def test_stacks_are_folded_too(text: str) -> None:
    """Law: so is an agent of named layers, its memory and its file included; nothing passed in changes."""
    whole = student(text, ActionRule(box((3,), -1, 1)), Preprocess(box((5,)), Normalizer(MEAN, SCALE, np.inf)))
    before = [parameter.clone() for parameter in whole.policy.parameters()]
    small, obs = fold(whole), states()
    state = np.random.default_rng(0).normal(size=(len(obs), whole.state_size)).astype(np.float32)
    for name, tensor in whole.heads(obs, state).present().items():
        torch.testing.assert_close(small.heads(obs, state).present()[name], tensor, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(whole.policy.parameters(), before, strict=True))
    assert convert(whole, States(obs), ExportConfig()).record["normalizer"] == "folded"


IMAGE = Preprocess(box((4, 9, 9), 0, 255, "uint8"), image=True)
CONVOLUTION = (("conv2d", {"out": 3, "kernel": 3, "padding": 1}), ("relu", {}), ("flatten", {}))


@pytest.mark.parametrize("kind", ["mlp", "stack", "flat"])
def test_an_image_is_divided_by_its_first_layers(kind: str) -> None:
    """Law: the division by 255 goes into the first weights, convolutions with padding and the critic's, too."""
    torch.manual_seed(0)
    flat = (("flatten", {}), ("linear", {"out": 4}), ("relu", {}))
    branches = [Branch(0, (4, 9, 9), CONVOLUTION if kind == "stack" else flat)]
    networks = [MLP(324, (8,), n) if kind == "mlp" else Stack(branches, (), n) for n in (3, 1)]
    rule = ActionRule(Discrete(3))
    whole = Agent(IMAGE, Policy(networks[0], rule, "logits", value=networks[1]).eval())
    assert can_fold(whole)
    small, obs = fold(whole), RNG.integers(0, 256, (50, 4, 9, 9)).astype("uint8")
    assert isinstance(small.preprocess, Preprocess)
    assert not small.preprocess.image
    for name, tensor in whole.heads(obs).present().items():
        torch.testing.assert_close(small.heads(obs).present()[name], tensor, rtol=1e-4, atol=1e-5)
    kinds = [op.kind for op in trace(small).ops]
    assert "scale" not in kinds
    assert "scale" in [op.kind for op in trace(whole).ops]


def test_an_image_that_no_weights_read_first_stays() -> None:
    """Law: where something else comes before the first weights, or there is a normalizer, nothing is folded."""
    pooled = Branch(0, (4, 9, 9), (("max_pool2d", {"kernel": 2, "stride": 2}), *CONVOLUTION))
    rule = ActionRule(Discrete(3))
    assert not can_fold(Agent(IMAGE, Policy(Stack([pooled], (), 3), rule, "logits")))
    plain = Agent(IMAGE, Policy(MLP(324, (8,), 3), rule, "logits"))
    assert can_fold(plain)
    normalizer = Normalizer(np.zeros((4, 9, 9)), np.ones((4, 9, 9)), np.inf)
    assert not can_fold(replace(plain, preprocess=replace(IMAGE, normalizer=normalizer)))


def test_only_plain_scaling_is_folded() -> None:
    """Law: a clip, an image, or statistics far from zero keep the normalizer as it is."""
    assert can_fold(normalized())
    assert not can_fold(normalized(clip=10.0))
    assert not can_fold(normalized(mean=1000 * SCALE))
    rows = Preprocess(box((2, 5)), Normalizer(np.stack([MEAN, MEAN]), np.stack([SCALE, SCALE]), np.inf))
    assert not can_fold(student("entities:4", ActionRule(box((3,), -1, 1)), rows))
    assert not can_fold(replace(normalized(), preprocess=Preprocess(box((5,)))))


def test_export_folds_what_it_can() -> None:
    """Law: the file of a foldable agent has no normalizer nodes, says so, and acts as the agent does."""
    files = {clip: convert(normalized(clip), States(states()), ExportConfig()) for clip in (np.inf, 10.0)}
    assert [files[clip].agent.record["normalizer"] for clip in files] == ["folded", "inside"]
    assert files[np.inf].agent.n_constants == files[10.0].agent.n_constants - 10
    assert files[np.inf].agent.n_params == files[10.0].agent.n_params
    obs = states()
    np.testing.assert_allclose(files[np.inf].agent.act(obs), normalized().act(obs), atol=1e-5)


def test_a_normalizer_without_clip_is_stored(tmp_path: Path) -> None:
    """Law: an infinite clip survives the file, which is JSON and has no infinity."""
    path = store.save(tmp_path / "a.safetensors", normalized(), {})
    norm = store.load(path).preprocess.normalizer
    assert norm is not None
    assert norm.clip == np.inf
