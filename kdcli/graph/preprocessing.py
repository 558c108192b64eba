"""The observation as operations: what `agents.observation` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np

from kdcli.agents.observation import Normalizer, Preprocess, Preprocessor
from kdcli.graph.graph_builder import GraphBuilder, Shape
from kdcli.graph.operations import Port
from kdcli.spec import Discrete, MultiDiscrete


class ObservationFeatures:
    """The features as a network reads them: each part of the observation on its own, or all of them flat."""

    def __init__(self, builder: GraphBuilder, seen: Sequence[Port]) -> None:
        self.builder, self.seen = builder, list(seen)

    @cached_property
    def flat(self) -> Port:
        """All features (F,)."""
        return self.builder.concat(self.seen)

    def part(self, start: int, shape: Shape) -> Port:
        """The features from `start` on in `shape`: the part that is there already, else cut out of all."""
        at = 0
        for port in self.seen:
            if at == start and port.size == prod(shape):
                return self.builder.reshape(port, shape)
            at += port.size
        return self.builder.reshape(self.builder.slice(self.flat, start, start + prod(shape)), shape)


def read_observation(builder: GraphBuilder, preprocess: Preprocessor, ports: Mapping[str, Port]) -> ObservationFeatures:
    """`Preprocessor.__call__`: raw observation -> features float32, part by part in their order."""
    return ObservationFeatures(
        builder, [_read_part(builder, part, ports[name]) for name, part in preprocess.parts.items()]
    )


def _read_part(builder: GraphBuilder, preprocess: Preprocess, obs: Port) -> Port:
    """One part (*shape) as float32, one-hot where it is integers, an image as (C, H, W)."""
    space, picked = preprocess.space, preprocess.places is not None
    if isinstance(space, Discrete | MultiDiscrete):
        return _read_integers(builder, preprocess, builder.cast(obs, "int64"))
    x, normalizer = _taken(builder, preprocess, obs), preprocess.normalizer
    x = builder.cast(x if normalizer is None else _normalize(builder, normalizer, x), "float32")
    if preprocess.channels_last and not picked:
        *size, channels = x.shape
        x = builder.add("channels_first", x, (channels, *size))
    return builder.add("scale", x, divisor=255.0) if preprocess.image else x


def _read_integers(builder: GraphBuilder, preprocess: Preprocess, integers: Port) -> Port:
    space = preprocess.space
    sizes, start = (space.nvec, 0) if isinstance(space, MultiDiscrete) else ((space.n,), space.start)  # type: ignore[union-attr]
    one_hot = builder.add("one_hot", integers, (sum(sizes),), "float32", sizes=sizes, start=start)
    return _taken(builder, preprocess, one_hot)


def _taken(builder: GraphBuilder, preprocess: Preprocess, x: Port) -> Port:
    """The features that are read, or all of them as they are."""
    if preprocess.places is None:
        return x
    places = tuple(map(int, preprocess.places))
    return builder.add("take", builder.flat(x), (len(places),), places=places)


def _normalize(builder: GraphBuilder, normalizer: Normalizer, obs: Port) -> Port:
    mean, scale = (np.array(part, np.float64) for part in (normalizer.mean, normalizer.scale))
    return builder.add("normalize", builder.cast(obs, "float64"), mean=mean, scale=scale, clip=normalizer.clip)
