"""Laws of every architecture in the table: a new row is tested by being there."""

from __future__ import annotations

from math import prod

import pytest
import torch

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks import NETWORKS, build, from_config
from kdcli.networks.layers import Shape

FLAT: list[Shape] = [(5,), (3,)]
SIGHTS: dict[str, list[list[Shape]]] = {
    "linear": [FLAT],
    "mlp": [FLAT],
    "cnn": [[(4, 84, 84)], [(4, 10, 10), (3,)], [(2,), (1, 36, 40)]],
}
TEXTS = {"linear": "linear", "mlp": "mlp:8x6,activation=relu", "cnn": "cnn:4x6x5,hidden=16x8,activation=tanh"}
each = pytest.mark.parametrize(("name", "sight"), [(n, s) for n, sights in SIGHTS.items() for s in sights])


def test_every_network_is_held_to_the_laws() -> None:
    """Law: no row is in the table without a case here."""
    assert set(SIGHTS) == set(TEXTS) == set(NETWORKS.names())


@each
def test_features_in_outputs_out(name: str, sight: list[Shape]) -> None:
    """Law: flat features (B, F) give (B, P), through the latent; every feature matters."""
    network = build(Choice.parse(TEXTS[name]), sight, 3, seed=0)
    features = torch.randn(4, sum(map(prod, sight)), generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = network(features)
    assert out.shape == (4, 3)
    torch.testing.assert_close(out, network.output(network.latent(features)))
    out.square().sum().backward()
    assert features.grad is not None
    assert float((features.grad != 0).any(0).float().mean()) > 0.9


@each
def test_a_network_is_what_it_records(name: str, sight: list[Shape]) -> None:
    """Law: equal seeds give equal weights, and the configuration rebuilds the network that takes them."""
    one, two = (build(Choice.parse(TEXTS[name]), sight, 3, seed=7) for _ in range(2))
    again = from_config(one.config())
    again.load_state_dict(two.state_dict())
    features = torch.randn(4, sum(map(prod, sight)), generator=torch.Generator().manual_seed(0))
    assert torch.equal(one(features), again(features))
    other = build(Choice.parse(TEXTS[name]), sight, 3, seed=8)
    assert not torch.equal(one(features), other(features))


@pytest.mark.parametrize(
    ("text", "sight"),
    [
        ("cnn:8", FLAT),
        ("cnn:8x8x8x8", [(1, 84, 84)]),
        ("cnn:8x8x8", [(1, 3, 3)]),
        ("cnn", [(1, 84, 84)]),
        ("cnn:8,width=3", [(1, 84, 84)]),
        ("mlp:0", FLAT),
        ("mlp:8,activation=sine", FLAT),
        ("mpl:8", FLAT),
    ],
)
def test_what_cannot_be_built(text: str, sight: list[Shape]) -> None:
    """Law: a network that cannot be is an error of the user's, with a way out."""
    with pytest.raises(UsageError) as raised:
        build(Choice.parse(text), sight, 3, seed=0)
    assert raised.value.fix
