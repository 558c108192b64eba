"""The observation as operations: what `agents.observation` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np

from kdcli.agents.observation import Normalizer, Preprocess, Sees
from kdcli.graph.operations import Port
from kdcli.graph.tape import Shape, Tape
from kdcli.spec import Discrete, MultiDiscrete


class Sight:
    """The features as a network reads them: each part of the observation on its own, or all of them flat."""

    def __init__(self, tape: Tape, seen: Sequence[Port]) -> None:
        self.tape, self.seen = tape, list(seen)

    @cached_property
    def flat(self) -> Port:
        """All features (F,)."""
        return self.tape.concat(self.seen)

    def part(self, start: int, shape: Shape) -> Port:
        """The features from `start` on in `shape`: the part that is there already, else cut out of all."""
        at = 0
        for port in self.seen:
            if at == start and port.size == prod(shape):
                return self.tape.reshape(port, shape)
            at += port.size
        return self.tape.reshape(self.tape.slice(self.flat, start, start + prod(shape)), shape)


def read_observation(tape: Tape, preprocess: Sees, ports: Mapping[str, Port]) -> Sight:
    """`Sees.__call__`: raw observation -> features float32, part by part in their order."""
    return Sight(tape, [_read_part(tape, part, ports[name]) for name, part in preprocess.parts.items()])


def _read_part(tape: Tape, preprocess: Preprocess, obs: Port) -> Port:
    """One part (*shape) as float32, one-hot where it is integers, an image as (C, H, W)."""
    space, picked = preprocess.space, preprocess.places is not None
    if isinstance(space, Discrete | MultiDiscrete):
        return _read_integers(tape, preprocess, tape.cast(obs, "int64"))
    x, normalizer = _taken(tape, preprocess, obs), preprocess.normalizer
    x = tape.cast(x if normalizer is None else _normalize(tape, normalizer, x), "float32")
    if preprocess.channels_last and not picked:
        *size, channels = x.shape
        x = tape.add("channels_first", x, (channels, *size))
    return tape.add("scale", x, divisor=255.0) if preprocess.image else x


def _read_integers(tape: Tape, preprocess: Preprocess, integers: Port) -> Port:
    space = preprocess.space
    sizes, start = (space.nvec, 0) if isinstance(space, MultiDiscrete) else ((space.n,), space.start)  # type: ignore[union-attr]
    one_hot = tape.add("one_hot", integers, (sum(sizes),), "float32", sizes=sizes, start=start)
    return _taken(tape, preprocess, one_hot)


def _taken(tape: Tape, preprocess: Preprocess, x: Port) -> Port:
    """The features that are read, or all of them as they are."""
    if preprocess.places is None:
        return x
    places = tuple(map(int, preprocess.places))
    return tape.add("take", tape.flat(x), (len(places),), places=places)


def _normalize(tape: Tape, normalizer: Normalizer, obs: Port) -> Port:
    mean, scale = (np.array(part, np.float64) for part in (normalizer.mean, normalizer.scale))
    return tape.add("normalize", tape.cast(obs, "float64"), mean=mean, scale=scale, clip=normalizer.clip)
