"""Laws of beginning with a teacher's layers, over every architecture of the table."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from test_networks import SIGHTS, TEXTS

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks import build
from kdcli.networks.dependency_graph import DependencyGraph, dependency_graph
from kdcli.networks.layers import Shape
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Stack
from kdcli.networks.surgery import Network, as_stack
from kdcli.networks.weight_init import transfer_weights

FLAT: list[Shape] = [(5,), (3,)]
IMAGE: list[Shape] = [(2, 12, 10), (3,)]
each = pytest.mark.parametrize(
    ("text", "input_shapes"),
    [(text, s) for name, input_branches in SIGHTS.items() for s in input_branches for text in TEXTS[name]],
)


def made(text: str, input_shapes: list[Shape], seed: int, outputs: int = 3) -> Network:
    """A network whose biases and gains are random, too."""
    network = build(Choice.parse(text), input_shapes, outputs, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def said(network: Network, input_shapes: list[Shape]) -> torch.Tensor:
    """What it says along four steps, (4, 6, P)."""
    seen = torch.randn(4, 6, sum(map(prod, input_shapes)), generator=torch.Generator().manual_seed(9))
    if isinstance(network, MLP) or not network.state_size:
        return torch.stack([network(features) for features in seen])
    state, found = torch.zeros(6, network.state_size), []
    for features in seen:
        latent, state = network.advance(features, state)
        found.append(network.output(latent))
    return torch.stack(found)


@each
def test_equal_widths_give_equal_outputs(text: str, input_shapes: list[Shape]) -> None:
    """Law: a student of the teacher's own widths is the teacher; nothing that was passed in changes, all can learn."""
    student, teacher = made(text, input_shapes, 1), made(text, input_shapes, 2)
    before = [{k: t.clone() for k, t in network.state_dict().items()} for network in (student, teacher)]
    child = transfer_weights(student, teacher)
    assert torch.equal(said(child, input_shapes), said(teacher, input_shapes))
    assert (type(child), child.config()) == (type(student), student.config())
    assert all(parameter.requires_grad for parameter in child.parameters())
    with torch.no_grad():
        for parameter in child.parameters():
            parameter += 1.0
    for network, old in zip((student, teacher), before, strict=True):
        assert all(torch.equal(tensor, old[key]) for key, tensor in network.state_dict().items())


NARROWER = [
    ("mlp:5x4", "mlp:9x7", FLAT),
    ("mlp:5x5,norm=layer,residual=true", "mlp:9x9,norm=layer,residual=true", FLAT),
    ("cnn:3x4,hidden=5", "cnn:6x7,hidden=9", IMAGE),
    ("mobilenet:3x3x4,expand=2,hidden=5", "mobilenet:6x6x5,expand=2,hidden=9", IMAGE),
    ("gru:5,before=4,hidden=3", "gru:9,before=8,hidden=7", FLAT),
    ("lstm:5", "lstm:9", FLAT),
]


@pytest.mark.parametrize(("small", "large", "input_shapes"), [case for case in NARROWER if "norm" not in case[0]])
def test_units_that_nobody_hears_are_left_out(small: str, large: str, input_shapes: list[Shape]) -> None:
    """Law: where the teacher has as many idle units as the student lacks, wherever they are, outputs are equal."""
    student = made(small, input_shapes, 1)
    teacher = _silenced(as_stack(made(large, input_shapes, 2)), dependency_graph(as_stack(student)))
    torch.testing.assert_close(said(transfer_weights(student, teacher), input_shapes), said(teacher, input_shapes))


def _silenced(large: Stack, small: DependencyGraph) -> Stack:
    """The network, with no weights on as many units of each layer as the smaller one has fewer; others drawn."""
    body, rng, idle = dependency_graph(large), np.random.default_rng(0), []
    for group, other in zip(body.groups, small.groups, strict=True):
        idle += rng.permutation(group.units)[: group.size - other.size].tolist()
    tensors = large.state_dict()
    for slot in body.slots:
        if slot.axis == 1:
            tensors[slot.key][:, torch.from_numpy(np.isin(slot.owner, idle))] = 0.0
    return large


@pytest.mark.parametrize(("small", "large", "input_shapes"), NARROWER)
def test_narrower_layers_hold_the_teachers_weights(small: str, large: str, input_shapes: list[Shape]) -> None:
    """Law: every weight of a narrower student is one of the teacher's, of the same layer."""
    teacher = made(large, input_shapes, 2)
    child = transfer_weights(made(small, input_shapes, 3), teacher)
    theirs = teacher.state_dict()
    for key, tensor in child.state_dict().items():
        assert set(tensor.flatten().tolist()) <= set(theirs[key].flatten().tolist())


def test_the_heaviest_units_stay() -> None:
    """Law: of a hidden layer, those stay whose norm of what comes in times that of what goes out is the largest."""
    teacher = made("mlp:6", FLAT, 2)
    assert isinstance(teacher, MLP)
    first, head = teacher.linears()
    coming = torch.cat([first.weight, first.bias[:, None]], 1).norm(dim=1)
    best = (coming * head.weight.norm(dim=0)).topk(3).indices.sort().values
    child = transfer_weights(made("mlp:3", FLAT, 3), teacher)
    assert isinstance(child, MLP)
    assert torch.equal(child.linears()[0].weight, first.weight[best])
    assert torch.equal(child.linears()[1].weight, head.weight[:, best])
    assert torch.equal(child.linears()[1].bias, head.bias)


@pytest.mark.parametrize(("large", "small", "input_shapes"), [case for case in NARROWER if "norm" not in case[0]])
def test_wider_students_say_the_same(small: str, large: str, input_shapes: list[Shape]) -> None:
    """Law: a wider student gives the teacher's outputs, and copies of a unit do not learn the same."""
    teacher = made(large, input_shapes, 2)
    child = transfer_weights(made(small, input_shapes, 3), teacher)
    torch.testing.assert_close(said(child, input_shapes), said(teacher, input_shapes))
    said(child, input_shapes).square().sum().backward()
    weight = next(p for p in child.parameters() if p.ndim > 1)
    grads = weight.grad.flatten(1)  # type: ignore[union-attr]
    assert len(torch.unique(grads, dim=0)) == len(grads)


def test_layers_without_a_counterpart_stay_the_students() -> None:
    """Law: of a deeper teacher the first layers are taken, of another number of outputs all but the head."""
    student, teacher = made("mlp:6x5", FLAT, 1), made("mlp:9x8x7", FLAT, 2)
    child = transfer_weights(student, teacher)
    assert isinstance(child, MLP)
    assert isinstance(student, MLP)
    assert not torch.equal(child.linears()[1].weight, student.linears()[1].weight)
    assert torch.equal(child.head.weight, student.head.weight)
    other = transfer_weights(made("mlp:9x8x7", FLAT, 1, outputs=2), teacher)
    assert torch.equal(other.latent(torch.ones(1, 8)), teacher.latent(torch.ones(1, 8)))
    assert other.outputs == 2


@pytest.mark.parametrize(
    ("student", "teacher", "input_branches"),
    [
        ("mlp:8,activation=relu", "mlp:8,activation=tanh", (FLAT, FLAT)),
        ("linear", "mlp:8", (FLAT, FLAT)),
        ("gru:8", "lstm:8", (FLAT, FLAT)),
        ("cnn:4x4,hidden=8", "mlp:8", (IMAGE, IMAGE)),
        ("mlp:8", "mlp:8", (FLAT, [(9,)])),
        ("attention:8,heads=2", "attention:8,heads=4", (FLAT, FLAT)),
        ("mlp:8,norm=layer", "mlp:8", (FLAT, FLAT)),
    ],
)
def test_networks_with_nothing_in_common(
    student: str, teacher: str, input_branches: tuple[list[Shape], list[Shape]]
) -> None:
    """Law: where not even the first layer has a counterpart, the user is told so."""
    with pytest.raises(UsageError, match="cannot begin") as raised:
        transfer_weights(made(student, input_branches[0], 1), made(teacher, input_branches[1], 2))
    assert raised.value.fix
