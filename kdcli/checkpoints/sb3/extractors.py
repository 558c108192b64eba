"""What Stable-Baselines3 puts before a policy's layers: parts of the observation as they are, or NatureCNN over images.

The strides of a convolution are in no file, so only NatureCNN is read, whose strides are known (Mnih et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdcli.agents.observation import is_image
from kdcli.agents.policy import Network
from kdcli.checkpoints.assembly import FLATTEN, Part, activation, conv2d, linear, network, stacked
from kdcli.checkpoints.safe.weights import Layer, Weights
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.errors import RefusedError
from kdcli.networks.stack import Branch
from kdcli.spec import Box, Dict, n_features, parts

_KERNELS, _STRIDES = (8, 4, 3), (4, 2, 1)

# A part of the features, and the layers over it; none pass it on as it is.
ObservationFeatures = tuple[Branch, list[Part]]


def input_branches(saved: Saved, prefix: str) -> list[ObservationFeatures]:
    """How the extractor whose tensors begin with `prefix` sees each part of the observation.

    Raises:
        RefusedError: convolutions that are not NatureCNN's.
    """
    found: list[ObservationFeatures] = []
    start = 0
    for name, part in parts(saved.observation).items():
        size, at = n_features(part), _inside(saved, prefix, name)
        if f"{at}cnn.0.weight" in saved.weights:
            found.append((Branch(start, part.shape), _nature(saved.weights, at)))
        elif found and not found[-1][1]:  # two neighbours without layers are one
            place, _ = found.pop()
            found.append((Branch(place.start, (place.shape[0] + size,)), []))
        else:
            found.append((Branch(start, (size,)), []))
        start += size
    return found


def _inside(saved: Saved, prefix: str, name: str) -> str:
    """What the names of the tensors over one part begin with."""
    return f"{prefix}extractors.{name}." if isinstance(saved.observation, Dict) else prefix


def _nature(weights: Weights, at: str) -> list[Part]:
    """Three convolutions and a linear layer, each with ReLU."""
    relu, found = activation("relu"), []
    for index, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
        part = conv2d(weights, f"{at}cnn.{2 * index}", stride)
        if part.options["kernel"] != [kernel, kernel]:
            why = f"its kernel is {part.options['kernel']}, not {kernel}x{kernel}, and no file tells its stride"
            raise RefusedError(f"{weights.what}: {at}cnn is not NatureCNN", why, "export the policy to ONNX")
        found += [part, relu]
    return [*found, FLATTEN, linear(weights.linear(f"{at}linear.0")), relu]


def perceptron_parts(layers: Sequence[Layer], name: str) -> list[Part]:
    """Linear layers with an activation between them."""
    inside = [part for layer in layers for part in (linear(layer), activation(name))]
    return inside[:-1]


def behind(seen: Sequence[ObservationFeatures], layers: Sequence[Part], what: str) -> Network:
    """The network of the extractor and the `layers` behind it, the last of which is its head.

    Raises:
        RefusedError: there are none, or they do not fit each other or the observation.
    """
    if not layers:
        raise RefusedError(f"{what} has no layers", "it is not a policy kdcli knows")
    if not any(inside for _, inside in seen):
        [(place, _)] = seen
        return network(place.shape, layers, what)
    return stacked(seen, layers[:-1], layers[-1], what)


def pictures(saved: Saved) -> dict[str, Box]:
    """The parts of the observation that are images, to Stable-Baselines3 or to a convolution."""
    found = {}
    for name, part in parts(saved.observation).items():
        at = f"{_inside(saved, 'features_extractor.', name)}cnn.0.weight"
        if isinstance(part, Box) and (is_image(part) or any(key.endswith(at) for key in saved.weights.state)):
            found[name] = part
    return found


def has(weights: Weights, prefix: str) -> bool:
    """Whether any tensor's name begins with `prefix`."""
    return any(name.startswith(prefix) for name in weights.state)


def same(weights: Weights, a: str, b: str) -> bool:
    """Whether the tensors that begin with `a` and with `b` are the same ones: a shared extractor has several names."""
    left, right = ({n[len(p) :]: t for n, t in weights.state.items() if n.startswith(p)} for p in (a, b))
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())
