"""Architectures by name: features (B, F) to outputs (B, P), without knowing whether they teach or learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdcli.choice import Choice
from kdcli.errors import RefusedError, UsageError
from kdcli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdcli.networks.layers import Shape
    from kdcli.networks.mlp import MLP
    from kdcli.networks.stack import Stack

# Those with memory, which learn along windows of episodes.
REMEMBERING = frozenset({"gru", "lstm", "attention"})
# Those that read an image as any other numbers, without convolutions.
FLAT = frozenset({"linear", "mlp", "entities"})

NETWORKS = Registry(
    "network",
    {
        "linear": ("kdcli.networks.mlp:linear", "one matrix and a bias, no hidden layer"),
        "mlp": (
            "kdcli.networks.residual_mlp:mlp",
            "hidden layers by width, mlp:64x32, with activation=tanh|relu|..., norm=layer, residual=true",
        ),
        "cnn": ("kdcli.networks.cnn:cnn", "convolutions by channels for images, cnn:8x16x16,hidden=64,strides=8x2x1"),
        "mobilenet": ("kdcli.networks.cnn:mobilenet", "inverted residuals for images, mobilenet:8x16x16,expand=4"),
        "gru": ("kdcli.networks.recurrent:gru", "memory, gru:32, with before=64, hidden=32, cnn=8x16x16 for images"),
        "lstm": ("kdcli.networks.recurrent:lstm", "memory, lstm:32, with the options of gru"),
        "attention": (
            "kdcli.networks.recurrent:attention",
            "a transformer over the last steps, attention:32,heads=2,history=8,layers=1",
        ),
        "entities": (
            "kdcli.networks.entities:entities",
            "a transformer over the rows of an observation (N, D), entities:32,heads=2,layers=1",
        ),
    },
    group="kdcli.networks",
)


def build(choice: Choice, input_shapes: Sequence[Shape], outputs: int, seed: int) -> MLP | Stack:
    """A freshly initialised network from a choice such as `mlp:32x32,activation=relu`; equal seeds, equal weights.

    `input_shapes` are the shapes of the features side by side: (n,), or (C, H, W) of an image.

    Raises:
        UsageError: unknown name or bad arguments.
    """
    import torch

    make = NETWORKS.load(choice.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(choice, input_shapes, outputs)


# Shapes of which every architecture takes one: numbers, rows of numbers, images.
_SHAPES: tuple[tuple[int, ...], ...] = ((8,), (4, 8), (3, 128, 128))


def check_choice(text: str) -> None:
    """Say what can be said of an architecture's text before it is known what the student will see.

    Raises:
        UsageError: unknown name or bad arguments, whatever is seen.
    """
    choice = Choice.parse(text)
    if choice.name not in NETWORKS.rows:  # somebody's own: what it makes of shapes that it was not made for is its own
        NETWORKS.load(choice.name)
        return
    for shape in _SHAPES:
        try:
            build(choice, [shape], 2, seed=0)
            return
        except UsageError as error:
            refused = error
    raise refused


def from_config(config: dict[str, Any]) -> MLP | Stack:
    """An uninitialised network from the configuration an artifact records (`network.config()`).

    Raises:
        RefusedError: not a configuration this version knows.
    """
    from kdcli.networks.mlp import MLP
    from kdcli.networks.stack import Stack

    kinds: dict[Any, type[MLP] | type[Stack]] = {"mlp": MLP, "stack": Stack}
    if config.get("kind") not in kinds:
        raise RefusedError(f"unknown network kind {config.get('kind')!r}", f"known: {', '.join(kinds)}", "update kdcli")
    return kinds[config["kind"]].from_config(config)
