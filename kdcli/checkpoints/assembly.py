"""From tensors, in the order they are used, to a network: an `MLP` where widths describe it, else a `Stack`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from math import prod

import torch
from torch import Tensor, nn

from kdcli.checkpoints.safe.weights import Layer, Weights, perceptron
from kdcli.errors import RefusedError
from kdcli.networks.layers import LayerSpec, Shape
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Branch, Stack

SCALING = "scaling"
_CELLS = {3: "gru_cell", 4: "lstm_cell"}
MAX_LAYERS = 64


@dataclass(frozen=True, eq=False)
class Part:
    """One layer, by its name and options in `networks.layers`, with its tensors under torch's names.

    A `scaling` is no layer of a network: x * [scale] + [shift], a number each for every feature or channel. It stands
    for a batch norm until `folded` puts it into a neighbour.
    """

    kind: str
    options: Mapping[str, object] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def spec(self) -> LayerSpec:
        """The layer's kind and options, without its tensors."""
        return self.kind, self.options

    @property
    def outputs(self) -> int:
        """Features or channels of a layer with a weight."""
        return len(self.tensors["weight"])

    @property
    def inputs(self) -> int:
        """Features or channels it reads."""
        return int(self.tensors["weight"].shape[1])


def image_shape(shape: Shape, channels_last: bool = False) -> Shape:
    """What a network reads of observations of `shape`: an image, channels first, or numbers side by side."""
    if len(shape) == 3:
        return (shape[2], *shape[:2]) if channels_last else shape
    return (prod(shape),)


def linear(layer: Layer) -> Part:
    """A linear layer."""
    tensors = {"weight": layer.weight} if layer.bias is None else {"weight": layer.weight, "bias": layer.bias}
    return Part("linear", {"out": len(layer.weight), "bias": layer.bias is not None}, tensors)


def conv2d(weights: Weights, prefix: str, stride: int, padding: int = 0) -> Part:
    """The convolution whose weight (out, in, height, width) is at `prefix`.

    Raises:
        RefusedError: it is not one.
    """
    weight, bias = weights.take(f"{prefix}.weight"), weights.take(f"{prefix}.bias")
    if weight.ndim != 4 or bias.shape != weight.shape[:1] or weight.numel() == 0:
        raise RefusedError(f"{weights.what}: {prefix} is not a convolution", f"its weight is {tuple(weight.shape)}")
    options = {"out": len(weight), "kernel": list(weight.shape[2:]), "stride": stride, "padding": padding}
    return Part("conv2d", options, {"weight": weight, "bias": bias})


def layer_norm(weights: Weights, prefix: str, eps: float = 1e-5) -> Part:
    """The layer norm at `prefix`."""
    return Part("layer_norm", {"eps": eps}, {key: weights.take(f"{prefix}.{key}") for key in ("weight", "bias")})


def batch_norm(weights: Weights, prefix: str, eps: float = 1e-5) -> Part:
    """The batch norm at `prefix` as it is in use: one factor and one summand a feature or channel, in float64."""
    mean, variance, weight, bias = (
        weights.take(f"{prefix}.{key}").double() for key in ("running_mean", "running_var", "weight", "bias")
    )
    scale = weight / torch.sqrt(variance + eps)
    return Part(SCALING, {}, {"scale": scale, "shift": bias - mean * scale})


def cells(weights: Weights, prefix: str) -> list[Part]:
    """The layers of the `nn.GRU` or `nn.LSTM` at `prefix`, one cell each.

    Raises:
        RefusedError: it is of another kind, or bidirectional.
    """
    found: list[Part] = []
    while f"{prefix}.weight_ih_l{len(found)}" in weights and len(found) < MAX_LAYERS:
        end = f"l{len(found)}"
        biases = [name for name in ("bias_ih", "bias_hh") if f"{prefix}.{name}_{end}" in weights]
        tensors = {name: weights.take(f"{prefix}.{name}_{end}") for name in ("weight_ih", "weight_hh", *biases)}
        found.append(_cell(tensors, f"{weights.what}: {prefix}"))
    return found


def _cell(tensors: Mapping[str, Tensor], what: str) -> Part:
    rows, hidden = tensors["weight_hh"].shape if tensors["weight_hh"].ndim == 2 else (0, 1)
    kind = _CELLS.get(rows // max(1, hidden))
    if kind is None or len(tensors) not in (2, 4):
        raise RefusedError(f"{what} is neither a GRU nor an LSTM", f"its weight is {tuple(tensors['weight_hh'].shape)}")
    return Part(kind, {"out": hidden, "bias": len(tensors) == 4}, tensors)


def activation(name: str) -> Part:
    """An activation by its name in kdcli."""
    return Part(name)


FLATTEN = Part("flatten")


def folded(parts: Sequence[Part], what: str) -> list[Part]:
    """The parts without scalings: each is folded into the layer before it, or else the one after it, in float64.

    Raises:
        RefusedError: neither neighbour is linear.
    """
    done: list[Part] = []
    pending: Part | None = None
    for part in parts:
        if pending is not None and part.kind != "flatten":
            part, pending = _before(pending, part, what), None
        if part.kind != SCALING:
            done.append(part)
        elif done and done[-1].kind in ("linear", "conv2d"):
            done[-1] = _after(done[-1], part)
        else:
            pending = part
    if pending is not None:
        raise RefusedError(f"{what}: it ends with a batch norm", "no layer is there to take it in")
    return done


def _after(part: Part, scaling: Part) -> Part:
    """W x + b, then times the scale and plus the shift."""
    scale, shift = scaling.tensors["scale"], scaling.tensors["shift"]
    weight = part.tensors["weight"].double()
    bias = part.tensors["bias"].double() if "bias" in part.tensors else torch.zeros_like(shift)
    scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return _replaced(part, scaled, bias * scale + shift)


def _before(scaling: Part, part: Part, what: str) -> Part:
    """W (x * scale + shift) + b; features that were channels come side by side, each as often as it has places."""
    if part.kind not in ("linear", "conv2d") or part.options.get("padding", 0):
        raise RefusedError(f"{what}: a batch norm before {part.kind}", "kdcli folds one into a layer without padding")
    weight, scale, shift = part.tensors["weight"].double(), scaling.tensors["scale"], scaling.tensors["shift"]
    each, rest = divmod(weight.shape[1], len(scale))
    if rest or (part.kind == "conv2d" and each != 1):
        raise RefusedError(f"{what}: a batch norm that does not fit", f"{len(scale)} numbers for {weight.shape[1]}")
    scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    bias = part.tensors["bias"].double() if "bias" in part.tensors else 0.0
    shape = (1, -1, *[1] * (weight.ndim - 2))
    return _replaced(part, weight * scale.reshape(shape), bias + summed @ shift)


def _replaced(part: Part, weight: Tensor, bias: Tensor) -> Part:
    return Part(part.kind, {**part.options, "bias": True}, {"weight": weight.float(), "bias": bias.float()})


def network(shape: Shape, parts: Sequence[Part], what: str) -> MLP | Stack:
    """The network that maps observations of `shape`, flattened, through `parts`; the last one is its linear head.

    Raises:
        RefusedError: the parts do not fit each other.
    """
    parts = folded(parts, what)
    if not parts or parts[-1].kind != "linear":
        raise RefusedError(f"{what} does not end in a linear layer", "it is not a policy kdcli knows")
    single = _only_activation(parts)
    if single is not None and len(shape) == 1:
        layers = [part for part in parts if part.kind == "linear"]
        _check_widths(layers, what)
        return perceptron(
            [Layer("", part.tensors["weight"], part.tensors.get("bias")) for part in layers], single, what
        )
    inside = [part.kind for part in parts].index("flatten") + 1 if len(shape) > 1 else 0
    return stacked([(Branch(0, shape), parts[:inside])], parts[inside:-1], parts[-1], what)


def _check_widths(layers: Sequence[Part], what: str) -> None:
    for part in layers:
        if part.outputs != part.options["out"]:
            raise RefusedError(f"{what}: a layer does not fit its description", f"{part.outputs} for {part.options}")


def _only_activation(parts: Sequence[Part]) -> str | None:
    """The activation of a plain MLP: linear, activation, linear, ..., linear; all alike, all with a bias or none."""
    kinds = [part.kind for part in parts]
    alike = len({part.options["bias"] for part in parts[::2] if part.kind == "linear"}) == 1
    plain = alike and set(kinds[::2]) == {"linear"} and len(set(kinds[1::2])) <= 1
    if not plain or len(kinds) % 2 == 0 or any(part.tensors for part in parts[1::2]):
        return None
    return kinds[1] if len(kinds) > 1 else "tanh"


def stacked(
    branches: Sequence[tuple[Branch, Sequence[Part]]], trunk: Sequence[Part], head: Part, what: str
) -> MLP | Stack:
    """A `Stack` of these branches (a place in the features and the layers over it), trunk and linear head.

    Raises:
        RefusedError: a layer does not fit, or its tensors do not.
    """
    places = [Branch(place.start, place.shape, tuple(part.spec for part in parts)) for place, parts in branches]
    with torch.device("meta"):  # neither draws random numbers nor fills memory
        made = Stack(places, [part.spec for part in trunk], head.outputs, bool(head.options["bias"]))
    used = [part for _, parts in branches for part in parts]
    for module, part in zip(made.layers(), [*used, *trunk, head], strict=True):
        _fill(module, part, what)
    return made


def _fill(module: nn.Module, part: Part, what: str) -> None:
    """Give a module its tensors."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in part.tensors.items()}
    if wanted != given:
        raise RefusedError(f"{what}: the layers do not fit each other", f"{part.kind} needs {wanted}, it has {given}")
    for name, tensor in part.tensors.items():
        setattr(module, name, nn.Parameter(tensor))


def ensemble(shape: Shape, members: Sequence[Sequence[Part]], what: str) -> MLP | Stack:
    """The mean of several networks of the same kind over the same observation, as one.

    Raises:
        RefusedError: as `network`.
    """
    if len(members) == 1:
        return network(shape, members[0], what)
    plain = [folded(parts, what) for parts in members]
    heads = [parts[-1] for parts in plain]
    weight = torch.cat([head.tensors["weight"].double() / len(plain) for head in heads], 1).float()
    bias = torch.stack([head.tensors["bias"].double() for head in heads]).mean(0).float()
    head = Part("linear", {"out": len(weight), "bias": True}, {"weight": weight, "bias": bias})
    return stacked([(Branch(0, shape), parts[:-1]) for parts in plain], [], head, what)


def sequential(weights: Weights, prefix: str, activations: Iterable[str]) -> list[Part]:
    """The layers of an `nn.Sequential` at `prefix`: a place without tensors is an activation, the next of the names.

    Raises:
        RefusedError: a convolution, whose stride the file does not tell, or something else than layers.
    """
    places = sorted({int(key) for key in (_place(name, prefix) for name in weights.state) if key})
    parts: list[Part] = []
    names = iter(activations)
    for before, place in zip([-1, *places], places, strict=False):
        gap = place - before - 1
        name = next(names, None) if gap else None
        if gap > 1 or (gap and (before < 0 or name is None)):
            raise RefusedError(f"{weights.what}: {prefix} holds layers kdcli cannot tell", f"before {prefix}.{place}")
        if name is not None:
            parts.append(activation(name))
        parts.append(one(weights, f"{prefix}.{place}"))
    return parts


def _place(name: str, prefix: str) -> str:
    rest = name.removeprefix(prefix + ".") if name.startswith(prefix + ".") else ""
    digits = "".join(takewhile(str.isdecimal, rest))
    return digits if rest[len(digits) :].startswith(".") and len(digits) < 6 else ""


def one(weights: Weights, prefix: str) -> Part:
    """The linear layer, layer norm or batch norm at `prefix`.

    Raises:
        RefusedError: it is another kind of layer.
    """
    if f"{prefix}.running_mean" in weights:
        return batch_norm(weights, prefix)
    axes = weights.state[f"{prefix}.weight"].ndim if f"{prefix}.weight" in weights else 0
    if axes == 1:
        return layer_norm(weights, prefix)
    if axes == 4:
        raise RefusedError(
            f"{weights.what}: {prefix} is a convolution", "the file does not tell its stride", "describe it in a card"
        )
    return linear(weights.linear(prefix))
