"""Laws of every architecture in the table: a new row is tested by being there."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import plain
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.student import resolve
from kdcli.errors import RefusedError, UsageError
from kdcli.networks import NETWORKS, build, from_config
from kdcli.networks.attention import AttentionCell
from kdcli.networks.layers import Shape
from kdcli.networks.stack import Stack
from kdcli.spec import Discrete, box

FLAT: list[Shape] = [(5,), (3,)]
IMAGES: list[list[Shape]] = [[(4, 84, 84)], [(4, 10, 10), (3,)], [(2,), (1, 36, 40)]]
SIGHTS: dict[str, list[list[Shape]]] = {
    "linear": [FLAT],
    "mlp": [FLAT],
    "cnn": IMAGES,
    "mobilenet": IMAGES,
    "gru": [FLAT, *IMAGES[1:]],
    "lstm": [FLAT],
    "attention": [FLAT, IMAGES[2]],
    "entities": [[(6, 4)], [(3,), (5, 2), (4, 3)]],
}
# Of each at least one with every option that it has.
TEXTS = {
    "linear": ["linear"],
    "mlp": ["mlp:8x6,activation=relu", "mlp:8x8x6,activation=silu,norm=layer,residual=true"],
    "cnn": ["cnn:4x6x5,hidden=16x8,activation=tanh", "cnn:4,strides=1"],
    "mobilenet": ["mobilenet:6x6x5,expand=2,hidden=8,activation=elu", "mobilenet:4x4,expand=1"],
    "gru": ["gru:8x5", "gru:7,before=6,hidden=5x4,cnn=3x4,activation=elu"],
    "lstm": ["lstm:6,before=9,hidden=8"],
    "attention": ["attention:8", "attention:12,heads=3,history=4,layers=2,feed=7,activation=tanh"],
    "entities": ["entities:8", "entities:6,heads=3,layers=2,feed=7,hidden=5x4,activation=tanh"],
}
each = pytest.mark.parametrize(
    ("text", "input_shapes"),
    [(text, s) for name, input_branches in SIGHTS.items() for s in input_branches for text in TEXTS[name]],
)


def test_every_network_is_held_to_the_laws() -> None:
    """Law: no row is in the table without a case here."""
    assert set(SIGHTS) == set(TEXTS) == set(NETWORKS.names())


@each
def test_features_in_outputs_out(text: str, input_shapes: list[Shape]) -> None:
    """Law: flat features (B, F) give (B, P), through the latent; every feature matters."""
    network = build(Choice.parse(text), input_shapes, 3, seed=0)
    features = torch.randn(4, sum(map(prod, input_shapes)), generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = network(features)
    assert out.shape == (4, 3)
    torch.testing.assert_close(out, network.output(network.latent(features)))
    out.square().sum().backward()
    assert features.grad is not None
    assert float((features.grad != 0).any(0).float().mean()) > 0.9


@each
def test_a_network_is_what_it_records(text: str, input_shapes: list[Shape]) -> None:
    """Law: equal seeds give equal weights, and the configuration rebuilds the network that takes them."""
    one, two = (build(Choice.parse(text), input_shapes, 3, seed=7) for _ in range(2))
    again = from_config(one.config())
    again.load_state_dict(two.state_dict())
    features = torch.randn(4, sum(map(prod, input_shapes)), generator=torch.Generator().manual_seed(0))
    assert torch.equal(one(features), again(features))
    assert json.loads(json.dumps(one.config())) == again.config() == one.config()
    other = build(Choice.parse(text), input_shapes, 3, seed=8)
    assert not torch.equal(one(features), other(features))


@pytest.mark.parametrize(
    ("text", "input_shapes"),
    [
        ("cnn:8", FLAT),
        ("cnn:8x8x8x8", [(1, 84, 84)]),
        ("cnn:8x8x8", [(1, 3, 3)]),
        ("cnn", [(1, 84, 84)]),
        ("cnn:8,width=3", [(1, 84, 84)]),
        ("cnn:8x8,strides=8", [(1, 84, 84)]),
        ("mlp:0", FLAT),
        ("mlp:8,activation=sine", FLAT),
        ("mpl:8", FLAT),
        ("mlp:8x8,norm=batch", FLAT),
        ("mlp:8x8,residual=yes", FLAT),
        ("mlp:8x6,residual=true", FLAT),
        ("mobilenet:8x8", FLAT),
        ("mobilenet:8x8,expand=0", [(1, 84, 84)]),
        ("gru", FLAT),
        ("gru:8,history=4", FLAT),
        ("gru:8,before=x", FLAT),
        ("gru:8", [(1, 3, 3)]),
        ("attention:8x8", FLAT),
        ("attention:8,heads=3", FLAT),
        ("attention:8,history=1", FLAT),
        ("attention:8,history=9999", FLAT),
        ("attention:8,layers=two", FLAT),
        ("entities:8", FLAT),
        ("entities:8,heads=5", [(3, 4)]),
    ],
)
def test_what_cannot_be_built(text: str, input_shapes: list[Shape]) -> None:
    """Law: a network that cannot be is an error of the user's, with a way out."""
    with pytest.raises(UsageError) as raised:
        build(Choice.parse(text), input_shapes, 3, seed=0)
    assert raised.value.fix


MEMORY = [
    (text, input_shapes)
    for name in ("gru", "lstm", "attention")
    for input_shapes in SIGHTS[name]
    for text in TEXTS[name]
]


@pytest.mark.parametrize(("text", "input_shapes"), MEMORY)
def test_what_was_seen_before_matters_and_learns(text: str, input_shapes: list[Shape]) -> None:
    """Law: the last output follows from the features of the first step, and a gradient goes back there."""
    network = build(Choice.parse(text), input_shapes, 3, seed=0)
    assert isinstance(network, Stack)
    width = sum(map(prod, input_shapes))
    seen = torch.randn(3, 4, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    state = torch.zeros(4, network.state_size)
    for features in seen:
        latent, state = network.advance(features, state)
    network.output(latent).square().sum().backward()
    assert seen.grad is not None
    assert float((seen.grad[0] != 0).any(0).float().mean()) > 0.9
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.trunk.parameters())


@pytest.mark.parametrize(("text", "input_shapes"), MEMORY)
def test_zeros_begin_an_episode(text: str, input_shapes: list[Shape]) -> None:
    """Law: without a state the network acts as with one of zeros; rows of a batch do not see each other."""
    network = build(Choice.parse(text), input_shapes, 3, seed=0)
    assert isinstance(network, Stack)
    features = torch.randn(4, sum(map(prod, input_shapes)), generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(4, network.state_size)
    latent, state = network.advance(features, zeros)
    torch.testing.assert_close(network.latent(features), latent)
    again, after = network.advance(features.flip(0), state)
    alone = [network.advance(f[None], s[None]) for f, s in zip(features.flip(0), state, strict=True)]
    torch.testing.assert_close(torch.cat([one for one, _ in alone]), again)
    torch.testing.assert_close(torch.cat([one for _, one in alone]), after)


def test_attention_looks_back_as_far_as_it_says() -> None:
    """Law: of a history of 3, the step two before still matters and the one before that does not."""
    network = build(Choice.parse("attention:8,history=3"), FLAT, 3, seed=0)
    assert isinstance(network, Stack)
    seen = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    state = torch.zeros(2, network.state_size)
    for features in seen:
        latent, state = network.advance(features, state)
    latent.square().sum().backward()
    assert seen.grad is not None
    assert [bool((step != 0).any()) for step in seen.grad] == [False, True, True, True]


def test_entities_have_no_order() -> None:
    """Law: rows that change their places change nothing."""
    network = build(Choice.parse("entities:8,layers=2"), [(6, 4)], 3, seed=0)
    rows = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))
    mixed = rows[:, torch.tensor([3, 1, 5, 0, 4, 2])]
    torch.testing.assert_close(network(rows.flatten(1)), network(mixed.flatten(1)))


CELL = ["attention_cell", {"heads": 1, "history": 3}]
HOSTILE: dict[str, list[Any]] = {
    "heads that do not divide": [["attention_cell", {"heads": 3, "history": 4}]],
    "more than can be looked at": [["attention_cell", {"heads": 1, "history": 2, "size": 1 << 40}]],
    "a history without end": [["attention_cell", {"heads": 1, "history": 1 << 40}]],
    "a history of none": [["attention_cell", {"heads": 1, "history": 0}]],
    "rows where there are none": [["attention", {"heads": 1}]],
    "a mean of nothing": [["mean", {}]],
    "residual of another width": [["residual", {"layers": [["linear", {"out": 5}]]}]],
    "residuals in each other": [["residual", {"layers": [["residual", {"layers": []}]]}]],
    "a residual of nothing readable": [["residual", {"layers": 3}]],
    "a residual without layers": [["residual", {}]],
    "many layers inside": [["residual", {"layers": [["tanh", {}]] * 2000}]],
    "an unknown layer inside": [["residual", {"layers": [["tahn", {}]]}]],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_description_that_makes_no_sense_is_refused(name: str) -> None:
    """Law: a file's description of a network is checked before anything is built of it."""
    with pytest.raises(RefusedError):
        from_config(_config([], HOSTILE[name]))


def _config(inside: list[Any], trunk: list[Any]) -> dict[str, Any]:
    branch = {"start": 0, "shape": [4], "layers": inside}
    return {"kind": "stack", "branches": [branch], "trunk": trunk, "outputs": 2, "bias": True}


def test_only_the_trunk_remembers() -> None:
    """Law: a layer with memory in a branch, also inside a residual, is refused."""
    for layer in (CELL, ["gru_cell", {"out": 4}], ["residual", {"layers": [CELL]}]):
        with pytest.raises(RefusedError, match="remembers in a branch"):
            from_config(_config([layer], []))
        assert from_config(_config([], [layer])).state_size > 0


def test_a_step_of_attention_is_attention_to_the_last_steps() -> None:
    """Law: step by step, an attention cell gives what scaled products of the last steps give, seen all at once."""
    torch.manual_seed(0)
    cell, steps = AttentionCell(6, heads=2, size=4, history=3), torch.randn(5, 7, 6)
    state = torch.zeros(7, cell.state_size)
    for t, x in enumerate(steps):
        y, state = cell.step(x, state)
        q, k, v, bias = cell.project(steps[max(0, t - 2) : t + 1]).split([4, 4, 4, 6], 2)
        looks = bias[-1].unflatten(1, (2, 1, 3))[..., -len(k) :]
        heads = [part.transpose(0, 1).unflatten(2, (2, 2)).transpose(1, 2) for part in (q[-1:], k, v)]
        wanted = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=looks)
        torch.testing.assert_close(y, cell.out(wanted.transpose(1, 2).flatten(1)))


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize("shape", [(3, 16, 16), (7,), (5, 7)], ids=str)
def test_settings_follow_the_student(name: str, shape: Shape) -> None:
    """Law: how a student learns is told by its network: small batches and rates where it has convolutions."""
    text, sees = "linear" if name == "linear" else f"{name}:8", plain(box(shape, 0.0, 1.0))
    try:
        network = build(Choice.parse(text), [part.shape for part in sees.parts.values()], 2, 0)
    except UsageError:
        return  # an architecture for observations of another shape
    student = Agent(sees, Policy(network, ActionRule(Discrete(2)), "logits"), "student")
    convolves = any(isinstance(module, nn.Conv2d) for module in network.modules())
    for found in (resolve(DistillConfig(student=text), student), resolve(DistillConfig(), student, student)):
        assert found.batch == (64 if convolves and not student.state_size else 256)
        assert found.lr.startswith("cosine:0.001" if convolves else "cosine:0.003")
