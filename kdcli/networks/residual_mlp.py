"""Multi-layer perceptrons as students, with layer norms and residual connections where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks.feature_branches import stacked
from kdcli.networks.layers import LayerSpec, Shape
from kdcli.networks.mlp import MLP, parse_widths, width_of
from kdcli.networks.stack import Branch, Stack


def mlp(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> MLP | Stack:
    """The network of `mlp:64x64[,activation=tanh][,norm=layer][,residual=true]`; images are flattened.

    norm=layer: a layer norm before each activation (Ba et al. 2016). residual=true: a hidden layer as wide as the one
    before adds to it (He et al. 2016).

    Raises:
        UsageError: an option it does not have, or nothing to add to.
    """
    choice.only("activation", "norm", "residual")
    widths, name = parse_widths(choice.value), choice.options.get("activation", "tanh")
    norm, residual = _one_of(choice, "norm", "none", "layer"), _one_of(choice, "residual", "false", "true")
    if not norm and not residual:
        return MLP(width_of(input_shapes), widths, outputs, name)
    trunk = _hidden(widths, name, norm, residual)
    if residual and not any(kind == "residual" for kind, _ in trunk):
        why = "a residual connection needs two hidden layers of one width, one after the other"
        raise UsageError(f"{choice} has nothing to add to", why, "e.g. mlp:32x32,residual=true")
    return stacked(choice, [Branch(0, (width_of(input_shapes),))], trunk, outputs, "see kdcli list networks")


def _one_of(choice: Choice, key: str, off: str, on: str) -> bool:
    text = choice.options.get(key, off)
    if text not in (off, on):
        raise UsageError(f"cannot read {key}={text}", f"it is {off} or {on}", f"{key}={on}")
    return text == on


def _hidden(widths: Sequence[int], name: str, norm: bool, residual: bool) -> list[LayerSpec]:
    trunk: list[LayerSpec] = []
    for before, width in zip((0, *widths), widths, strict=False):
        norms: list[LayerSpec] = [("layer_norm", {})] if norm else []
        block: list[LayerSpec] = [("linear", {"out": width}), *norms, (name, {})]
        trunk += [("residual", {"layers": block})] if residual and width == before else block
    return trunk
