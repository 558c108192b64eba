"""Students that see things: attention between the rows of an observation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks.feature_branches import branches, dense, is_set, stacked
from kdcli.networks.layers import Shape
from kdcli.networks.recurrent import transformer
from kdcli.networks.stack import Stack


def entities(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    """The network of `entities:32[,heads=2][,layers=1][,feed=64][,hidden=32][,activation=relu]`.

    A transformer encoder over the rows of an observation (N, D), one for each thing, and their mean, so that their
    order does not matter; then, with what else is seen, hidden layers. Vaswani et al. 2017; Zaheer et al. 2017, eq. 2.

    Raises:
        UsageError: nothing seen has rows, or an option cannot be read.
    """
    choice.only("heads", "layers", "feed", "hidden", "activation")
    if not any(map(is_set, input_shapes)):
        why = f"this agent sees {sum(map(prod, input_shapes))} numbers"
        raise UsageError(f"{choice.name} needs an observation of rows, (N, D)", why, "choose an mlp, or attention")
    rows = [*transformer(choice, "attention"), ("mean", {})]
    parts = branches(input_shapes, lambda shape: rows if is_set(shape) else ())
    trunk = dense(choice.options.get("hidden", choice.value), choice.options.get("activation", "relu"))
    return stacked(choice, parts, trunk, outputs, "choose a width that the heads divide")
