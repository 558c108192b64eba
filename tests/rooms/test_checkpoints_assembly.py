"""Layers put together: batch norms folded, networks averaged, sequences read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign import mlp, stirred
from torch import nn

from kdcli.checkpoints import assembly
from kdcli.checkpoints.assembly import FLATTEN, Part
from kdcli.checkpoints.safe.weights import Weights
from kdcli.errors import RefusedError
from kdcli.networks.mlp import MLP


def parts(module: nn.Sequential, names: dict[type[nn.Module], str]) -> list[Part]:
    """The layers of a Sequential, by torch's own modules."""
    weights = Weights({f"x.{name}": t for name, t in module.state_dict().items()}, "test")
    found = []
    for place, layer in enumerate(module):
        match layer:
            case nn.Conv2d():
                found.append(assembly.conv2d(weights, f"x.{place}", layer.stride[0], layer.padding[0]))  # type: ignore[arg-type]
            case nn.Flatten():
                found.append(FLATTEN)
            case _ if type(layer) in names:
                found.append(assembly.activation(names[type(layer)]))
            case _:
                found.append(assembly.one(weights, f"x.{place}"))
    return found


NAMES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}
FLAT = {
    "before": (nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    "after": (nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "both": (nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    "first": (nn.BatchNorm1d(5), nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 3)),
    "layer norm": (nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)),
}
IMAGES = {
    "before conv": (nn.Conv2d(2, 4, 3, 2), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten()),
    "after conv": (nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten()),
    "before flatten": (nn.Conv2d(2, 3, 3, 2), nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten()),
}


@pytest.mark.parametrize("name", FLAT)
def test_batch_norms_of_features(name: str) -> None:
    """Law: a batch norm before or after a layer is folded into it; what is left acts as torch's evaluation mode."""
    module = stirred(nn.Sequential(*FLAT[name]))
    network = assembly.network((5,), parts(module, NAMES), "test")  # type: ignore[arg-type]
    x = torch.randn(100, 5)
    torch.testing.assert_close(network(x), module(x), atol=1e-5, rtol=1e-5)
    assert isinstance(network, MLP) == (name != "layer norm")


@pytest.mark.parametrize("name", IMAGES)
def test_batch_norms_of_images(name: str) -> None:
    """Law: so is one of channels, also where the channels are flattened before the next layer."""
    body = nn.Sequential(*IMAGES[name])
    width = body.eval()(torch.zeros(1, 2, 9, 8)).shape[1]
    module = stirred(nn.Sequential(*body, nn.Linear(width, 3)))
    network = assembly.network((2, 9, 8), parts(module, NAMES), "test")  # type: ignore[arg-type]
    x = torch.randn(50, 2, 9, 8)
    torch.testing.assert_close(network(x.flatten(1)), module(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8)),
        (nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.LayerNorm(8), nn.Linear(8, 3)),
        (nn.Linear(5, 8), nn.ReLU(), nn.Linear(7, 3)),
        (nn.Linear(5, 8), nn.ReLU()),
    ],
    ids=["nothing after", "no layer after", "widths", "no head"],
)
def test_what_cannot_be_folded(layers: tuple[nn.Module, ...]) -> None:
    """Law: a batch norm without a linear neighbour, and layers that do not follow each other, are refused."""
    with pytest.raises(RefusedError):
        assembly.network((5,), parts(nn.Sequential(*layers), NAMES), "test")


def test_a_padded_convolution_takes_no_batch_norm() -> None:
    """Law: zeros that are padded come after the batch norm, so it cannot be folded into what follows."""
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, 1, 1), nn.Flatten())
    with pytest.raises(RefusedError) as raised:
        assembly.network((2, 9, 8), [*parts(module, NAMES), assembly.activation("relu")], "test")
    assert "without padding" in raised.value.why


def test_an_ensemble_is_its_mean() -> None:
    """Law: several networks as one give the mean of what each gives."""
    modules = [stirred(mlp(5, 8, 3, activation=nn.ReLU), 0.2 + i) for i in range(3)]
    made = assembly.ensemble((5,), [parts(module, NAMES) for module in modules], "test")  # type: ignore[arg-type]
    x = torch.randn(100, 5)
    torch.testing.assert_close(made(x), torch.stack([m(x) for m in modules]).mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "names",
    [
        ("x.0.weight", "x.3.weight"),
        ("x.1.weight",),
        ("x.0.weight", "x.2.weight", "x.4.weight"),
    ],
    ids=["two places between", "begins later", "too few names"],
)
def test_sequences_that_cannot_be_told(names: tuple[str, ...]) -> None:
    """Law: a place between layers is one activation; anything else is refused."""
    weights = Weights({name: torch.ones(4, 4) for name in names}, "test")
    with pytest.raises(RefusedError):
        assembly.sequential(weights, "x", ["relu"])


def test_cells_that_are_none() -> None:
    """Law: a recurrent layer that is neither GRU nor LSTM is refused."""
    with pytest.raises(RefusedError, match="neither"):
        assembly.cells(Weights({f"x.{k}": v for k, v in nn.RNN(3, 4).state_dict().items()}, "test"), "x")
    assert np.array_equal(assembly.cells(Weights({}, "test"), "x"), [])
