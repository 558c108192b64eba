"""Spaces as gymnasium has them, for what asks for those."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from kdcli.spec import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space


def to_gymnasium(space: Space) -> spaces.Space[Any]:
    """The same space of gymnasium's."""
    match space:
        case Box():
            return spaces.Box(space.low, space.high, space.shape, np.dtype(space.dtype))
        case Discrete():
            return spaces.Discrete(space.n, start=space.start)
        case MultiDiscrete():
            return spaces.MultiDiscrete(list(space.nvec))
        case MultiBinary():
            return spaces.MultiBinary(space.n if space.dims is None else list(space.dims))
        case Dict():
            return spaces.Dict({name: to_gymnasium(part) for name, part in space.spaces.items()})
